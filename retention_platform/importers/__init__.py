"""Other players' logs to contract events: pure functions, one file a format."""
