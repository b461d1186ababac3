"""`streamgauge bench`: ours and its peers, on one broker, over the same texts, in one run.

    command -> driver: rounds, interleaved -> running: one system in a process of its own -> observe: what came out
                       load: fills and paces     systems/: one program each                  statistics, report: pure

Two jobs: `stream` has no model (what consuming, decoding, batching and publishing cost), `model` has the real one.
"""
