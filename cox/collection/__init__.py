"""Many runs at once: finding them, reading what changed, and what is computed of all of them."""
