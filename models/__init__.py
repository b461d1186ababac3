"""The learning half of Streamgauge: from labelled text to a release that a worker can serve.

    labelled text -> datasets -> training -> export -> releases -> runtime -> classifier -> evaluation

`tasks` says what to decide on which label. Only `training` and `export` import torch; everything a worker needs
(`tasks`, `releases`, `runtime`, `classifier`) and `evaluation` run without it. Nothing here imports `streams`.
"""
