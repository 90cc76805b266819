"""Guards that are taken away one at a time: each loss has to be noticed by the test that is named for it."""
