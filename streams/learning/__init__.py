"""The learning loop at Kafka: feedback becomes versions of the data set, and releases roll out into running workers."""
