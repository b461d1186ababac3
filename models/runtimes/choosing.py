"""Which runtime serves a release: of those that load and give the right scores, the one that is fastest here.

candidates of the device -> load -> parity gate on the golden set -> rate on the golden set -> the fastest
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from models.errors import DeviceUnavailable, IntegrityError, RuntimeUnavailable
from models.golden import GOLDEN, Golden, read_golden
from models.releases import MODEL, Precision, read_manifest
from models.runtimes import parity
from models.runtimes.candidates import CANDIDATES, RUNTIMES, Candidate, reference
from models.runtimes.cuda import cuda_problem
from models.runtimes.measuring import choose, golden_batches, golden_handfuls, golden_logits, measure
from models.runtimes.protocol import Device, Runtime, cores
from models.runtimes.remembered import Decision, Finding, decision_key, recall, remember

MEASURE_S = 0.3  # for each candidate, once on a machine
MAX_REASON_CHARS = 300

T = TypeVar("T")

log = logging.getLogger(__name__)


def open_runtime(
    directory: Path,
    device: Device = "auto",
    name: str = "auto",
    threads: int | None = None,
    head_slices: Sequence[slice] = (),
) -> Runtime:
    """Load a release's graph on a device with the fastest runtime that gives its scores, or with the one named.

    Args:
        directory: the release.
        device: "auto" is CUDA where something can use it, else the CPU.
        name: "auto", or one of RUNTIMES.
        threads: the cores it may take on the CPU, one a run; None is all of them.
        head_slices: the columns of each head, so that the gate compares the labels of each; without, all are one's.

    Raises:
        DeviceUnavailable: "cuda" was asked for and there is none.
        RuntimeUnavailable: the runtime asked for is not here, cannot run the release, or does not give its scores.
        IntegrityError: the release's model cannot be loaded at all, or nothing gives the scores it was made with.
    """
    if name != "auto":
        return _named(directory, device, name, threads, head_slices)
    problem = None if device == "cpu" else cuda_problem()
    if device == "cuda" and problem:
        raise DeviceUnavailable(f"device: 'cuda' was asked for, but {problem}; use 'auto' or 'cpu'")
    if device != "cpu" and problem is None:
        try:
            return _fastest(directory, "cuda", 1, head_slices)
        except RuntimeUnavailable as error:
            if device == "cuda":
                raise DeviceUnavailable(f"device: 'cuda' was asked for, but {error}; use 'auto' or 'cpu'") from error
            log.warning("there is a CUDA device, but %s", error)
    try:
        return _fastest(directory, "cpu", threads or cores(), head_slices)
    except RuntimeUnavailable as error:
        raise IntegrityError(f"{directory / MODEL}: {error}") from error


def _fastest(directory: Path, device: str, slots: int, heads: Sequence[slice]) -> Runtime:
    precision, golden = precision_of(directory), read_golden(directory)
    candidates = [one for one in fitting(precision) if one.device == device and not one.by_name]
    if not candidates:
        raise RuntimeUnavailable(f"a release in {precision} runs on the CPU alone")
    if golden is None:
        only = _candidate(reference(precision, device))
        runtime = _loaded(only, directory, slots)
        log.info("%s: %s: without %s nothing else can be compared", directory.name, only.name, GOLDEN)
        return runtime
    judged = [(each.name, *parity.allowance(each.tolerance, precision)) for each in candidates]
    key = decision_key(directory, device, slots, heads, judged)
    if (decision := recall(key)) and decision.chosen in {candidate.name for candidate in candidates}:
        try:
            runtime = _loaded(_candidate(decision.chosen), directory, slots)
        except RuntimeUnavailable as error:
            log.warning("%s: %s served before, and no longer: %s", directory.name, decision.chosen, error)
        else:
            log.info("%s: %s (measured before)", directory.name, _told(decision))
            return runtime
    decision, runtime = _decided(directory, candidates, slots, golden, heads)
    remember(key, decision)
    log.info("%s: %s", directory.name, _told(decision))
    return runtime


def _decided(
    directory: Path, candidates: Sequence[Candidate], slots: int, golden: Golden, heads: Sequence[slice]
) -> tuple[Decision, Runtime]:
    precision = precision_of(directory)
    findings: list[Finding] = []
    rates: dict[str, float] = {}
    best: Runtime | None = None  # only this one stays in memory
    for candidate in candidates:
        if candidate.spare and rates and (leader := choose(rates)) != reference(precision, candidate.device):
            findings.append(
                Finding(name=candidate.name, refused=f"not tried, as {leader} is faster than the reference")
            )
            continue
        try:
            runtime = _passed(candidate, directory, slots, golden, heads)
            batches = [*golden_batches(golden, candidate.device), *golden_handfuls(golden)]
            rate = _or_unavailable("run", partial(measure, runtime, batches, MEASURE_S))
        except RuntimeUnavailable as error:
            findings.append(Finding(name=candidate.name, refused=str(error)))
            continue
        findings.append(Finding(name=candidate.name, texts_per_s=rate.texts_per_s, tokens_per_s=rate.tokens_per_s))
        rates[candidate.name] = rate.texts_per_s
        if choose(rates) == candidate.name:
            best = runtime
    if best is None:
        reasons = "; ".join(f"{finding.name}: {finding.refused}" for finding in findings)
        raise RuntimeUnavailable(f"nothing can serve it on this device: {reasons}")
    return Decision(chosen=best.name, findings=tuple(findings)), best


def _named(directory: Path, device: Device, name: str, threads: int | None, heads: Sequence[slice]) -> Runtime:
    if name not in RUNTIMES:
        raise RuntimeUnavailable(f"runtime: {name!r} is none; allowed: auto, {', '.join(RUNTIMES)}")
    candidate = _candidate(name)
    if device not in ("auto", candidate.device):
        others = ", ".join(other.name for other in CANDIDATES if other.device == device)
        raise RuntimeUnavailable(f"runtime: {name!r} does not run on device {device!r}; on it there are {others}")
    precision = precision_of(directory)
    if precision not in candidate.precisions:
        others = ", ".join(other.name for other in fitting(precision))
        raise RuntimeUnavailable(f"runtime: {name!r} does not run a release in {precision}; those that do: {others}")
    if candidate.device == "cuda" and (problem := cuda_problem()):
        raise DeviceUnavailable(f"runtime: {name!r} was asked for, but {problem}; use 'auto'")
    slots = 1 if candidate.device == "cuda" else threads or cores()
    golden = read_golden(directory)
    try:
        if golden is None:
            runtime = _loaded(candidate, directory, slots)
            if name != reference(precision, candidate.device):
                log.warning("%s: %s, unchecked: the release has no %s", directory.name, name, GOLDEN)
        else:
            runtime = _passed(candidate, directory, slots, golden, heads)
    except RuntimeUnavailable as error:
        others = ", ".join(other for other in available(directory, candidate.device) if other != name) or "none"
        raise RuntimeUnavailable(f"runtime: {name!r}: {error}; what loads here: {others}; or use 'auto'") from error
    log.info("%s: %s, as asked for", directory.name, name)
    return runtime


def available(directory: Path, device: str) -> list[str]:
    """The names of the runtimes of a device ("cpu" or "cuda") that can load a release here."""
    names = []
    for candidate in fitting(precision_of(directory)):
        if candidate.device == device:
            try:
                _loaded(candidate, directory, 1)
            except RuntimeUnavailable:
                continue
            names.append(candidate.name)
    return names


def precision_of(directory: Path) -> Precision:
    """In which precision a release holds its weights. Raises IntegrityError when it is no release."""
    return read_manifest(directory).precision


def fitting(precision: Precision) -> list[Candidate]:
    """The candidates for releases of this precision, on any device."""
    return [candidate for candidate in CANDIDATES if precision in candidate.precisions]


def _candidate(name: str) -> Candidate:
    return next(candidate for candidate in CANDIDATES if candidate.name == name)


def _loaded(candidate: Candidate, directory: Path, slots: int) -> Runtime:
    return _or_unavailable("load", partial(candidate.load, directory, slots))


def _passed(candidate: Candidate, directory: Path, slots: int, golden: Golden, heads: Sequence[slice]) -> Runtime:
    """A candidate, loaded and through the gate. Raises RuntimeUnavailable when it is not."""
    runtime = _loaded(candidate, directory, slots)
    batches = golden_batches(golden, candidate.device)
    logits = _or_unavailable("run", partial(golden_logits, runtime, batches))
    tolerance, labels = parity.allowance(candidate.tolerance, precision_of(directory))
    if problem := parity.problem(logits, golden.logits, tolerance, heads, labels):
        raise RuntimeUnavailable(problem)
    return runtime


def _or_unavailable(what: str, work: Callable[[], T]) -> T:
    """The result of a library's work; whatever it raises (most raise bare exceptions) becomes RuntimeUnavailable."""
    try:
        return work()
    except RuntimeUnavailable:
        raise
    except Exception as error:
        first_line = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise RuntimeUnavailable(f"cannot {what} it: {first_line[:MAX_REASON_CHARS]}") from error


def _told(decision: Decision) -> str:
    """Such as "openvino-bf16, of openvino-bf16 1,280 texts/s (21,000 tokens/s); ...; torch-bf16 refused: ..."."""
    parts = [
        f"{finding.name} refused: {finding.refused}"
        if finding.texts_per_s is None
        else f"{finding.name} {finding.texts_per_s:,.0f} texts/s ({finding.tokens_per_s:,.0f} tokens/s)"
        for finding in sorted(decision.findings, key=lambda finding: -(finding.texts_per_s or 0))
    ]
    return f"{decision.chosen}, of {'; '.join(parts)}"
