"""Speed and memory of s2s beside another program: same weights, same inputs, same tokens, in turn."""
