"""Boss2SQL: a boss asks in English, the model writes SQL.

``company.py`` makes the database, ``questions.txt`` says what is asked and ``pairs.py`` turns both
into training data; ``execution.py`` runs what a model wrote, safely, and scores it by its result.
From a shell: ``python -m seq2seq_cli.tasks.boss2sql data|ask|score``.
"""

from seq2seq_cli.tasks.boss2sql.execution import execution_accuracy, run_sql
from seq2seq_cli.tasks.boss2sql.files import write_data

__all__ = ["execution_accuracy", "run_sql", "write_data"]
