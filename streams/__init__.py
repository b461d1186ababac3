"""The serving half of Streamgauge: Kafka in, scored in micro-batches, decisions out.

One event passes, in this order: `consuming` (slices of a partition), `intake` (bytes to event or dead letter),
`scoring` over `batching` (micro-batches on one model), `decisions` (alerts, routes, reviews), `publishing`
(acknowledged by the broker), and back to `consuming` (the offset may be committed). `app` wires them.
"""
