"""Recognises audio and video, which are not decoded, and says what to do instead."""

from __future__ import annotations

from pathlib import Path

_ENDINGS = {
    "audio": (".wav", ".mp3", ".flac", ".ogg", ".m4a", ".aac", ".wma"),
    "video": (".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"),
}
_VIDEOS = ("Kinetics", "Kinetics400", "HMDB51", "UCF101", "MovingMNIST")  # torchvision's.


def media_of_file(path: str | Path) -> str | None:
    """`audio` or `video`, by the ending of a path; None for any other.

    >>> media_of_file("takes/one.WAV")
    'audio'
    """
    ending = Path(path).suffix.lower()
    return next((kind for kind, endings in _ENDINGS.items() if ending in endings), None)


def media_of_class(target: object) -> str | None:
    """`audio` or `video`, for a data set of torchaudio, or one of torchvision's videos; else None."""
    kind = target if isinstance(target, type) else type(target)
    library = kind.__module__.partition(".")[0]
    if library == "torchaudio":
        return "audio"
    return "video" if library == "torchvision" and kind.__name__ in _VIDEOS else None


def refusal(what: str, kind: str) -> str:
    """The error for audio or video.

    Args:
        what: What holds it, as the subject of the sentence.
        kind: "audio" or "video".
    """
    arrays = "spectrograms [frequencies, steps]" if kind == "audio" else "frames [steps, C, H, W]"
    return (
        f"{what} holds {kind}, which Antelope does not decode. Make arrays of it first, such as {arrays} "
        "of one length, and give them as a pair (inputs, targets), or from the __getitem__ of a Dataset."
    )
