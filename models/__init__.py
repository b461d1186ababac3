"""The learning half of Streamgauge: from labelled text to a release that a worker can serve.

    labelled text -> datasets -> lessons -> training -> export -> releases -> runtimes -> classifier -> evaluation

`tasks` says what to decide on which label. Only `training` and `export` import torch at once; everything a worker needs
(`tasks`, `releases`, `runtimes`, `classifier`) and `evaluation` run without it. Nothing here imports `streams`.
"""
