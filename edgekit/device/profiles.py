"""How long to measure: quick for development, publish for quoting, sustained for what heat does."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgekit.errors import UsageError


@dataclass(frozen=True)
class Profile:
    """Per process: `samples` rounds and `seconds`, cut at `max_seconds`; warm-up likewise."""

    name: str
    processes: int
    samples: int
    seconds: float
    max_seconds: float
    warmup: int
    warmup_seconds: float

    @property
    def sustained(self) -> bool:
        return self.name == "sustained"


QUICK = Profile("quick", 2, 150, 0.0, 1.0, 5, 0.2)
PUBLISH = Profile("publish", 5, 205, 12.0, 60.0, 10, 1.0)  # 1025 samples and 60 s in 5 processes
LAYERS = Profile("layers", 2, 100, 0.0, 15.0, 3, 0.1)  # "quick" ends after a few rounds of two dozen files
SUSTAINED = Profile("sustained", 1, 1, 600.0, 600.0, 0, 0.0)  # no warm-up: the curve begins cold
PROFILES = {profile.name: profile for profile in (QUICK, PUBLISH, SUSTAINED)}


def find_profile(profile: str | Profile, minutes: float | None = None) -> Profile:
    """A profile by name; `minutes` is how long a sustained run takes."""
    if isinstance(profile, str):
        if profile not in PROFILES:
            raise UsageError(f"profile {profile!r} does not exist: {', '.join(PROFILES)}")
        profile = PROFILES[profile]
    if minutes is None:
        return profile
    if not profile.sustained:
        raise UsageError(f"minutes = {minutes:g} with profile {profile.name}: profile sustained")
    if not 0 < minutes <= 24 * 60:
        raise UsageError(f"minutes = {minutes:g}: more than 0, at most a day")
    return replace(profile, seconds=minutes * 60, max_seconds=minutes * 60)
