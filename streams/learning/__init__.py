"""The learning loop at Kafka: feedback becomes versions of the data set, which `models.learning` works on; releases roll
out into running workers.
"""
