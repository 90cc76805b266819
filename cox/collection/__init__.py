"""Many runs at once: reading what changed of them, and putting their rows together."""
