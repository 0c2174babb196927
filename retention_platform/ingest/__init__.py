"""Topic to raw tables: the consumer and its delivery protocol."""
