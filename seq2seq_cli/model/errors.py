"""What a model cannot read."""


class InputError(ValueError):
    """Token ids that the vocabulary lacks, or more tokens than there are positions; the message says which
    limit was passed. On an accelerator only its own library can tell, in its own words."""
