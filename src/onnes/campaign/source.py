"""Where the candidates of a run come from: the generator, in blocks, or files."""

from __future__ import annotations

from concurrent.futures import as_completed
from typing import TYPE_CHECKING, Any, Protocol

from onnes.campaign.canonical import content_hash
from onnes.campaign.funnel import Watcher
from onnes.campaign.ledger import Candidate, Ledger
from onnes.campaign.settings import GeneratePart, Settings
from onnes.errors import InputError, SettingsError
from onnes.parallel import Workers

if TYPE_CHECKING:
    from onnes.generate.asked import SamplerSettings


class Source(Protocol):
    """Candidates of a run, checked before anything is written."""

    digest: str

    def fill(self, ledger: Ledger, workers: Workers, watcher: Watcher) -> None:
        """Bring the candidates that are missing into the ledger."""


def source(settings: Settings) -> Source:
    """Check where the candidates come from.

    Raises
    ------
    SettingsError
        Whatever is wrong with the settings of the generator.
    InputError
        ``no-structures`` when files are screened and none could be read.
    """
    return Files(settings) if settings.generate.paths else Generated(settings)


def require_same(ledger: Ledger, chosen: Source, settings: Settings) -> None:
    """Refuse to mix candidates of two origins in one run; called before the run is touched.

    Raises
    ------
    SettingsError
        ``other-source``.
    """
    held = ledger.get_meta("source")
    if held is not None and held != chosen.digest:
        raise SettingsError(
            "other-source",
            "this run's crystals were made with other seed, model, files or generate settings; use another --out",
        )
    if not settings.generate.paths and any(c.index >= settings.run.n for c in ledger.candidates()):
        n = len(ledger.candidates())
        raise SettingsError(
            "other-source", f"the run holds {n} crystals, more than n = {settings.run.n}; use another --out"
        )


class Generated:
    """Crystals of a generator, in blocks of consecutive indices."""

    def __init__(self, settings: Settings) -> None:
        from onnes.generate.models import open_sampler

        self.settings = settings
        self.asked = sampler_settings(settings.generate)
        self.model = open_sampler(self.asked).checkpoint.hash
        # The order of elements in a list means nothing.
        part = settings.generate.model_dump()
        part.update(elements=sorted(set(part["elements"])), exclude=sorted(set(part["exclude"])))
        self.digest = content_hash([self.model, settings.run.seed, part])

    def fill(self, ledger: Ledger, workers: Workers, watcher: Watcher) -> None:
        """Draw the blocks that are missing, in the workers when there are several."""
        from onnes.generate.sampling import BLOCK

        n, seed = self.settings.run.n, self.settings.run.seed
        held = {c.index for c in ledger.candidates()}
        chunks = [(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]
        todo = [c for c in chunks if not set(range(*c)) <= held]
        watcher.begin("generate", n, len(held))
        watcher.advance("generate", len(held), 0)

        def store(drawn: list[tuple[int, dict[str, Any]]], chunk: tuple[int, int]) -> None:
            _store(ledger, drawn, self.digest, chunk, f"{self.asked.model} {self.model}", held, watcher)

        if workers.count > 1 and len(todo) > 1:
            waiting = {workers.submit(sample_chunk, self.asked, *c, seed): c for c in todo}
            for future in as_completed(waiting):
                store(future.result(), waiting[future])
        else:
            for chunk in todo:
                store(sample_chunk(self.asked, *chunk, seed), chunk)
        watcher.end("generate")


def sampler_settings(part: GeneratePart) -> SamplerSettings:
    """Translate the settings of a run into those of the sampler."""
    from onnes.generate.asked import SamplerSettings

    target = float(part.target_tc_K) or None
    return SamplerSettings(
        model=part.model,
        steps=part.steps or None,
        temperature=float(part.temperature),
        elements=tuple(part.elements),
        exclude=tuple(part.exclude),
        target_tc=target,
        guidance=float(part.guidance),
        formula=part.formula,
        atoms=part.atoms or None,
        space_group=part.space_group or None,
    )


def sample_chunk(
    settings: SamplerSettings, start: int, stop: int, seed: int
) -> list[tuple[int, dict[str, Any]]]:
    """Draw the crystals with these indices."""
    from onnes.campaign.stages import plain
    from onnes.generate.models import open_sampler

    return [(index, plain(s)) for index, s in open_sampler(settings).sample(start, stop, seed)]


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
        Candidate(f"g{index:06d}", index, structure, model, index)
        for index, structure in drawn
        if index not in held
    ]
    ledger.add_candidates(fresh, chunk=(source, *chunk))
    watcher.advance("generate", len(fresh), 0)


#: Files are read with these wide limits: judging is the work of the check stage, which can be resumed.
ANY = {"max_atoms": 100_000, "min_distance_A": 0.01, "min_distance_ratio": 0.0, "max_isolation_A": 1e3}


class Files:
    """Crystals of files and folders; what cannot be read is kept in the run's facts, not lost."""

    def __init__(self, settings: Settings) -> None:
        from onnes.campaign.stages import plain
        from onnes.crystal.check import Limits
        from onnes.crystal.read import Crystal, read

        self.candidates: list[Candidate] = []
        self.refused: list[list[str]] = []
        for item in read(settings.generate.paths, limits=Limits(**ANY)):  # type: ignore[arg-type]
            if isinstance(item, Crystal):
                k = len(self.candidates)
                self.candidates.append(Candidate(item.id, k, plain(item.structure), item.source, k))
            else:
                self.refused.append([item.source, item.code, item.message])
        if not self.candidates:
            first = (
                f"the first: {self.refused[0][0]}: {self.refused[0][2]}"
                if self.refused
                else "there were none"
            )
            raise InputError("no-structures", f"none of {len(self.refused)} inputs could be read; {first}")
        self.digest = content_hash([(c.id, c.structure) for c in self.candidates])

    def fill(self, ledger: Ledger, workers: Workers, watcher: Watcher) -> None:
        """Add all candidates."""
        watcher.begin("read", len(self.candidates) + len(self.refused), 0)
        ledger.set_meta("refused_inputs", self.refused)
        ledger.add_candidates(self.candidates)
        watcher.advance("read", len(self.candidates), len(self.refused))
        watcher.end("read")
