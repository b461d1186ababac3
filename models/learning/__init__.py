"""The learning loop without Kafka, from people's labels to a better release: plain rows in, plain rows out."""
