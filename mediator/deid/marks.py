"""Technical marks that may stand among listed words, and values of an attribute that follow a pattern of their own.

Each is a closed list of shapes: `B30f` and `FC08` are kernels, `5mm` is a measure, `b800` a diffusion weighting, `T12`
a vertebra; `P017`, `AB123` and `N45` are nobody's shape. None reads as a date: a measure has its unit and no leading
zero, and what could be a month behind a full stop (`12.05`) or a year (`1965`) is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# no 05mm, no 12.05mm, no 1965ms
_SIZE = r"(?:0\.\d{1,3}|[1-9]\d{0,2}(?:\.(?!0[1-9]|1[0-2])\d{1,3})?)"
_UNITS = r"(?:mm|cm|s|sec|ms|min|kVp?|keV|MeV|MV|mAs?|mSv|mGy|Gy|MBq|mCi|ml|cc|Hz|dir)"
# a slice's thickness without its unit, as Siemens' console has it (`Thorax 1.0 B70f`): no month is 0; 1.25 is a day
_THICKNESS = r"0\.\d{1,2}|[1-9]\d?\.0"
# kernels: Siemens before and since its VA50 software (two digits of sharpness), Canon's FC01 to FC86
# An initial, an age and a sex look the same (`J65m`): in a text only sharpnesses that scanners have, and no medium one.
_SIEMENS = r"[BCDHIJQSTU](?:[1-9]0|1[089]|2[1-69]|3[1-79]|4[1-9]|75|95)[fhsuv]"
_SIEMENS_ALONE = r"[BCDHIJQSTU][1-9]\d[fhmsuv]?"
_SIEMENS_NEW = r"(?:B[frlvp]|H[cfnprv]|Qr|Sa|Sd|T[r]|U[rv]|Pr)[1-9]\d"
_CANON = r"FC[0-8]\d"
_MAGNET = r"(?:0\.\d{1,2}|[1-9](?:\.[05])?|1[01]\.[0-9])T"
_WEIGHTING = r"T[12]w?i?|PDw?i?|T[12](?:star|fs)|[2-5]D|T[12][WF]FE"
# multiples of ten below a thousand, of a hundred from there on
_DIFFUSION = r"b(?:0|[1-9]\d?0|(?!19)[1-7]\d00)"
_VERTEBRA = r"(?:C[1-7]|Th?(?:[1-9]|1[0-2])|L[1-5]|S[1-5])"
_MARK = re.compile(
    "|".join((
        f"{_SIZE}{_UNITS}", _THICKNESS, _SIEMENS, f"{_SIEMENS_NEW}[dfhmsuvwz]", _CANON, _MAGNET, _WEIGHTING,
        _DIFFUSION, _VERTEBRA,
    )),
    re.ASCII | re.IGNORECASE,
)  # fmt: skip
# what else ConvolutionKernel may say: a strength beside the kernel (`Br40d\3`), Philips' letters, smoothing of PET
_KERNEL = re.compile(
    rf"{_SIEMENS_ALONE}|{_SIEMENS_NEW}[dfhmsuvwz]?|{_CANON}(?:-[A-Z])?|[1-5]|[A-FL]"
    r"|(?:XYZ ?)?(?:Gauss(?:ian)?|Hann|Hamming|Butterworth) ?\d{0,2}(?:\.\d{1,2})?(?: ?mm)?"
    r"|[A-Z]{1,2}_(?:SOFT|SHARP|VSHARP|BONE|LUNG)_[A-F]{1,2}"
    r"|(?:IMR|iDose|SAFIRE|ADMIRE|ASiR|ASiR-V|AR)[ -]?\d{1,2}0?%?",
    re.ASCII | re.IGNORECASE,
)
# TG-263 8: targets, with a level or a dose
_TARGET = re.compile(
    r"z?(?:i?GTV|i?CTV|i?PTV|ITV)(?:p|n|sb|par|v|vas|l|m)?\d{0,2}(?:[_ -]?(?:High|Low|Mid\d{0,2}|eval|opt|boost))?"
    r"(?:[_ -](?:(?!19|20[1-4])[1-9]\d{1,2}0|[1-9]\d|[1-9]\d(?:\.\d)? ?Gy))?(?:x\d{1,2})?(?:_[LR])?",
    re.ASCII | re.IGNORECASE,
)  # fmt: skip


def is_mark(word: str) -> bool:
    """Whether a word of a text is a technical mark."""
    return _MARK.fullmatch(word) is not None


def shapes(agents: Iterable[str]) -> Mapping[str, re.Pattern[str]]:
    """The patterns of whole values, by keyword; `agents`: the names of contrast agents."""
    agent = "|".join(re.escape(name) for name in sorted(agents, key=lambda name: (-len(name), name)))
    amount = r"[1-9]\d{0,2}(?:\.\d)? ?(?:ml|cc)"
    strength = r"[ -]?(?:1[48]0|2[0478]0|3[0257]0|400|0\.5|1\.0)(?: ?mg(?:I?/ml)?)?(?:/100)?"
    contrast = re.compile(
        rf"(?:{amount} (?:of )?)?(?:{agent})(?:{strength})?(?:[ /,]{{1,2}}{amount})?", re.ASCII | re.IGNORECASE
    )
    return {"ConvolutionKernel": _KERNEL, "ROIName": _TARGET, "SegmentLabel": _TARGET, "ROIObservationLabel": _TARGET,
            "ContrastBolusAgent": contrast}  # fmt: skip
