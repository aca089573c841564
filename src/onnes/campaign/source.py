"""Where the candidates of a run come from: the generator, in blocks, or files."""

from __future__ import annotations

from concurrent.futures import as_completed
from typing import TYPE_CHECKING, Any

from onnes.campaign.canonical import content_hash
from onnes.campaign.funnel import Watcher
from onnes.campaign.ledger import Candidate, Ledger
from onnes.campaign.settings import GeneratePart, Settings
from onnes.campaign.workers import Workers
from onnes.errors import InputError, SettingsError

if TYPE_CHECKING:
    from onnes.generate.sampling import SamplerSettings


def fill(ledger: Ledger, settings: Settings, workers: Workers, watcher: Watcher) -> None:
    """Bring all candidates of a run into its ledger; what is there already stays.

    Raises
    ------
    SettingsError
        ``other-source``: the ledger's candidates were made with other settings.
    InputError
        ``no-structures`` when files are screened and none could be read.
    """
    if settings.generate.paths:
        _read_files(ledger, settings, watcher)
    else:
        _generate(ledger, settings, workers, watcher)


def _generate(ledger: Ledger, settings: Settings, workers: Workers, watcher: Watcher) -> None:
    from onnes.generate.sampling import BLOCK, Sampler

    asked = sampler_settings(settings.generate)
    sampler = Sampler(asked)  # refuses bad settings before any work
    source = content_hash([sampler.checkpoint.hash, settings.run.seed, settings.generate])
    _same_source(ledger, source)
    n = settings.run.n
    held = {c.index for c in ledger.candidates()}
    if any(index >= n for index in held):
        raise SettingsError(
            "other-source", f"the run holds {len(held)} crystals, more than n = {n}; use another --out"
        )
    chunks = [(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]
    todo = [c for c in chunks if not set(range(*c)) <= held]
    watcher.begin("generate", n, n - sum(len(set(range(*c)) - held) for c in todo))
    watcher.advance("generate", len(held), 0)
    if workers.count > 1 and len(todo) > 1:
        waiting = {
            workers.submit(sample_chunk, asked, start, stop, settings.run.seed): (start, stop)
            for start, stop in todo
        }
        for future in as_completed(waiting):
            _store(ledger, future.result(), source, waiting[future], sampler.checkpoint.hash, held, watcher)
    else:
        for start, stop in todo:
            drawn = sample_chunk(asked, start, stop, settings.run.seed)
            _store(ledger, drawn, source, (start, stop), sampler.checkpoint.hash, held, watcher)
    watcher.end("generate")


def sampler_settings(part: GeneratePart) -> SamplerSettings:
    """Translate the settings of a run into those of the sampler."""
    from onnes.generate.sampling import SamplerSettings

    target = float(part.target_tc_K) or None
    return SamplerSettings(
        steps=part.steps,
        temperature=float(part.temperature),
        elements=tuple(part.elements),
        exclude=tuple(part.exclude),
        target_tc=target,
        guidance=float(part.guidance),
    )


def sample_chunk(
    settings: SamplerSettings, start: int, stop: int, seed: int
) -> list[tuple[int, dict[str, Any]]]:
    """Draw the crystals with these indices."""
    from onnes.campaign.stages import plain
    from onnes.generate.sampling import Sampler

    return [(index, plain(s)) for index, s in Sampler(settings).sample(start, stop, seed)]


def _store(
    ledger: Ledger,
    drawn: list[tuple[int, dict[str, Any]]],
    source: str,
    chunk: tuple[int, int],
    model: str,
    held: set[int],
    watcher: Watcher,
) -> None:
    fresh = [
        Candidate(f"g{index:06d}", index, structure, f"diffusion {model}", index)
        for index, structure in drawn
        if index not in held
    ]
    ledger.add_candidates(fresh, chunk=(source, *chunk))
    watcher.advance("generate", len(fresh), 0)


def _same_source(ledger: Ledger, source: str) -> None:
    held = ledger.get_meta("source")
    if held is not None and held != source:
        raise SettingsError(
            "other-source",
            "this run's crystals were made with other seed, model, files or generate settings; use another --out",
        )
    if held is None:
        ledger.set_meta("source", source)


def _read_files(ledger: Ledger, settings: Settings, watcher: Watcher) -> None:
    """Take structures from files; what cannot be read is kept in the run's facts, not lost."""
    from onnes.campaign.stages import plain
    from onnes.crystal.check import Limits
    from onnes.crystal.read import Crystal, read

    found, refused = [], []
    for item in read(settings.generate.paths, limits=Limits(max_atoms=settings.check.max_atoms)):
        if isinstance(item, Crystal):
            found.append(item)
        else:
            refused.append(item)
    if not found:
        raise InputError("no-structures", f"none of {len(refused)} inputs could be read; {_first(refused)}")
    _same_source(ledger, content_hash([(c.id, plain(c.structure)) for c in found]))
    watcher.begin("read", len(found) + len(refused), 0)
    ledger.set_meta("refused_inputs", [[r.source, r.code, r.message] for r in refused])
    ledger.add_candidates(Candidate(c.id, k, plain(c.structure), c.source, k) for k, c in enumerate(found))
    watcher.advance("read", len(found), len(refused))
    watcher.end("read")


def _first(refused: list[Any]) -> str:
    return f"the first: {refused[0].source}: {refused[0].message}" if refused else "there were none"
