"""OpenMoji as a folder of pictures, a subfolder a group: real colour pictures for a run of one's own, offline.

    python -m scripts.openmoji OUT                  # 4,495 pictures of 72 px on white, ten groups
    python -m scripts.openmoji OUT --side=144 --plain        # larger ones, without variants of skin tones: 2,465
    python -m scripts.openmoji OUT --captions       # those with a name in Unicode, which lies beside each, a .txt

`pip install -e '.[emoji]'` brings the pictures (SVG; CC BY-SA 4.0: what is derived from them carries what
OUT/ATTRIBUTION.txt says). Groups are those of Unicode's emoji-test.txt; what OpenMoji has beyond Unicode's is a group
of its own, extras. Files are called by their code points.
"""

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

from dd_jax.data import emoji
from dd_jax.system import files
from dd_jax.system.errors import UserError
from dd_jax.system.progress import Progress

GROUPS = {
    "s": "smileys",
    "p": "people",
    "a": "animals",
    "f": "food",
    "t": "travel",
    "g": "activities",
    "o": "objects",
    "y": "symbols",
    "l": "flags",
    "x": "extras",
}
# Where a group begins among the pictures' first code points, which it has up to the next.
RUNS = """
23y 2Dx 30y 20E3x 2122y 229Cx 231At 2328o 23CFy 23F0t 23F8y 23FBx 24C2y 25A1x 25AAy 25ACx 25B6y 25C9x 25FBy 2600t
2605x 260Eo 2611y 2614t 2615f 2618a 261Dp 2620s 2622y 2639s 2640y 2654x 265Fg 2668t 267By 2692o 2693t 2694o 2695y
2696o 269By 26A1t 26A7y 26B0o 26BDg 26C4t 26CEy 26CFo 26D4y 26E9t 26F3g 26F4t 26F7p 26F8g 26F9p 26FAt 2702o 2705y
2708t 2709o 270Ap 270Fo 2714y 2728g 2733y 2744t 2747y 2763s 2795y 2B0Cx 2B1By 2B1Fx 2B50t 2B55y 2B58x 3030y E000x
1F004g 1F10Dx 1F170y 1F1E6l 1F201y 1F260x 1F300t 1F32Df 1F331a 1F336f 1F337a 1F33Df 1F33Ea 1F344f 1F380g 1F382f 1F383g
1F385p 1F386g 1F38Cl 1F38Dg 1F392o 1F396g 1F399o 1F39Fg 1F3A0t 1F3A3g 1F3A4o 1F3A6y 1F3A7o 1F3A8g 1F3A9o 1F3AAt 1F3ABg
1F3ACo 1F3ADg 1F3B5o 1F3BDg 1F3C1l 1F3C2p 1F3C5g 1F3C7p 1F3C8g 1F3CAp 1F3CDt 1F3CFg 1F3D4t 1F3E7y 1F3E8t 1F3EEo 1F3EFt
1F3F3l 1F3F5a 1F3F7o 1F3F8g 1F3F9o 1F3FAf 1F3FBp 1F400a 1F440p 1F441s 1F442p 1F451o 1F463p 1F479s 1F47Cp 1F47Ds 1F481p
1F484o 1F485p 1F488t 1F489o 1F48Bs 1F48Do 1F48Fp 1F490a 1F491p 1F492t 1F493s 1F4A0y 1F4A1o 1F4A2s 1F4A3o 1F4A4s 1F4A7t
1F4A8s 1F4AAp 1F4ABs 1F4AEa 1F4AFs 1F4B0o 1F4B1y 1F4B3o 1F4BAt 1F4BBo 1F4DBy 1F4DCo 1F4F3y 1F4F7o 1F500y 1F507o 1F518y
1F525t 1F526o 1F52Af 1F52Bg 1F52Co 1F52Eg 1F52Fy 1F54Aa 1F54Bt 1F54Ey 1F550t 1F56Fo 1F570t 1F573s 1F574p 1F576o 1F577a
1F579g 1F57Ap 1F587o 1F590p 1F5A4s 1F5A5o 1F5BCg 1F5C2o 1F5E3p 1F5E8s 1F5F3o 1F5FAt 1F5FFo 1F600s 1F645p 1F648s 1F64Bp
1F680t 1F6A3p 1F6A4t 1F6A9l 1F6AAo 1F6ABy 1F6ACo 1F6ADy 1F6B2t 1F6B3y 1F6B4p 1F6B7y 1F6BDo 1F6BEy 1F6BFo 1F6C0p 1F6C1o
1F6C2y 1F6CBo 1F6CCp 1F6CDo 1F6CEt 1F6CFo 1F6D0y 1F6D1t 1F6D2o 1F6D5t 1F6D7o 1F6D8t 1F6DCy 1F6DDt 1F6E0o 1F6E2t 1F6F7g
1F6F8t 1F7E0y 1F90Cp 1F90Ds 1F90Fp 1F910s 1F918p 1F920s 1F926p 1F927s 1F930p 1F93Fg 1F940a 1F941o 1F942f 1F945g 1F950f
1F970s 1F977p 1F978s 1F97Bo 1F980f 1F981a 1F990f 1F992a 1F99Ef 1F99Fa 1F9AAf 1F9ABa 1F9AFo 1F9B0p 1F9BAo 1F9BBp 1F9BCt
1F9BEp 1F9C0f 1F9CCp 1F9D0s 1F9D1p 1F9E1s 1F9E2o 1F9E7g 1F9EAo 1F9EDt 1F9EEo 1F9F1t 1F9F2o 1F9F3t 1F9F4o 1F9F5g 1F9F7o
1F9F8g 1F9F9o 1FA75s 1FA78o 1FA80g 1FA82t 1FA83o 1FA84g 1FA87o 1FA90t 1FA91o 1FAA1g 1FAA3o 1FAA8t 1FAA9g 1FAAAo 1FAAFy
1FAB0a 1FAB5t 1FAB6a 1FAC0p 1FACDa 1FAD0f 1FADFy 1FAE0s 1FAE6p 1FAE7o 1FAE8s 1FAF0p 1FBC5x
"""
FIRST = sorted((int(point, 16), GROUPS[group]) for point, group in re.findall(r"([0-9A-F]+)([a-z])", RUNS))
TONES = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}  # skin tones, behind what they are the tone of
MOST = 1024  # px of a side


def group_of(name: str) -> str:
    """The group of a picture by its code points, "1F98A" or "1F468-1F3FD-200D-1F9B0"."""
    first = int(name.split("-")[0], 16)
    return [group for begin, group in FIRST if begin <= first][-1]


def write(out: Path, side: int, plain: bool = False, captions: bool = False) -> Counter[str]:
    """All pictures, side x side on white; `plain`: no variants of skin tones -> how many of each group.

    `captions`: only those that have a name, beside it.
    """
    found = emoji.symbols()
    names = [name for name in found if not (plain and TONES & {*name.split("-")[1:]})]
    said = {name: text for name in names if (text := emoji.names().get(name.replace("-FE0F", "")))} if captions else {}
    names = [*said] if captions else names
    counts: Counter[str] = Counter()
    with Progress(len(names), "openmoji", "pictures") as progress:
        for name in names:
            group = group_of(name)
            with files.writing(out / group / f"{name}.png") as file:
                emoji.on_white(emoji.drawn(found[name], side)).save(file, "PNG")
            if captions:
                files.replace(out / group / f"{name}.txt", f"{said[name]}\n".encode())
            counts[group] += 1
            progress.update()
    files.replace(out / "ATTRIBUTION.txt", f"{emoji.ATTRIBUTION}\n".encode())
    return counts


def main() -> None:
    parser = argparse.ArgumentParser("python -m scripts.openmoji", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--side", type=int, default=72, help="px of a side")
    parser.add_argument("--plain", action="store_true", help="leave variants of skin tones out")
    parser.add_argument(
        "--captions", action="store_true", help="with a name beside each picture, those without left out"
    )
    args = parser.parse_args()
    if not 1 <= args.side <= MOST:
        parser.error(f"--side={args.side}: px of a side, from 1 to {MOST}")
    try:
        files.spelled_in(args)
        files.check_folder(args.out)
        counts = write(args.out, args.side, args.plain, args.captions)
    except UserError as error:
        sys.exit(f"error: {error}")
    told = ", ".join(f"{group} {count:,}" for group, count in sorted(counts.items()))
    print(f"openmoji: wrote {sum(counts.values()):,} pictures to {args.out}: {told}")


if __name__ == "__main__":
    main()
