r"""A second domain, in colour, with a real gap, made from packages that contain images.

    pip install resvg-py
    python benchmarks/colour_domain.py --out=runs/colour
    bin/train --dataset=folder:runs/colour/emoji --ood=folder:runs/colour/clip_art --image_size=32

The domain is four categories of emoji: animals, food, objects and travel. Four vendors' drawings
are for training, a fifth vendor's drawings of the same things are the test. The out-of-domain pool
is clip art of all kinds by other hands. All are drawn on white, at most 64 pixels wide.

| images | package | drawings | licence |
|---|---|---|---|
| emoji/train | npm emoji-datasource-twitter | Twemoji | CC BY 4.0 |
| emoji/train | npm openmoji | OpenMoji | CC BY-SA 4.0 |
| emoji/train | npm emojione | EmojiOne 2 | CC BY 4.0 |
| emoji/train | npm @lobehub/fluent-emoji-3d | Fluent Emoji | MIT |
| emoji/test | npm emoji-datasource-google | Noto Emoji | Apache 2.0 |
| clip_art | Debian openclipart-png | Open Clip Art Library | public domain |

Needs `npm`, and `apt-get` and `dpkg-deb` of a Debian system; what is fetched is kept in
OUT/packages. `OUT/sources.json` names package, version, licence and SHA-256 of each.
"""

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

from PIL import Image, UnidentifiedImageError

SIZE = 64
CATEGORIES = {
    "Animals & Nature": "animals",
    "Food & Drink": "food",
    "Objects": "objects",
    "Travel & Places": "travel",
}
# Vendor -> the package, its version, the licence of the drawings, and where they lie in it: a file
# for each emoji, named by its code.
NPM = {
    "twitter": ("emoji-datasource-twitter", "16.0.0", "CC BY 4.0", "img/twitter/64"),
    "openmoji": ("openmoji", "17.0.0", "CC BY-SA 4.0", "color/svg"),
    "emojione": ("emojione", "2.2.7", "CC BY 4.0", "assets/png"),
    "fluent": ("@lobehub/fluent-emoji-3d", "1.1.0", "MIT", "assets"),
    "google": ("emoji-datasource-google", "16.0.0", "Apache 2.0", "img/google/64"),
}
# The vendor whose drawings are the test, and whose package says what category a code is of. (Of
# OpenMoji's outlines, which are unlike the others', a teacher of two vendors knew half.)
TEST = "google"
DEBIAN = "openclipart-png"


def fetch(packages):
    """Downloads what is not there yet.

    Args:
        packages: directory to keep the packages in.

    Returns:
        Dict from each vendor of `NPM`, and "clip_art", to the package's file.
    """
    packages.mkdir(parents=True, exist_ok=True)
    files = {}
    for vendor, (package, version, *_) in NPM.items():
        name = package.removeprefix("@").replace("/", "-")
        files[vendor] = packages / f"{name}-{version}.tgz"
        if not files[vendor].exists():
            subprocess.run(
                ["npm", "pack", "--silent", f"{package}@{version}"], cwd=packages, check=True
            )
    if not list(packages.glob(f"{DEBIAN}_*.deb")):
        subprocess.run(["apt-get", "download", DEBIAN], cwd=packages, check=True)
    (files["clip_art"],) = packages.glob(f"{DEBIAN}_*.deb")
    return files


def on_white(encoded):
    """An image file as RGB of at most `SIZE` pixels, on white where it is transparent."""
    image = Image.open(io.BytesIO(encoded)).convert("RGBA")
    image.thumbnail((SIZE, SIZE))
    canvas = Image.new("RGBA", (SIZE, SIZE), "white")
    canvas.alpha_composite(image, ((SIZE - image.width) // 2, (SIZE - image.height) // 2))
    return canvas.convert("RGB")


def bare(code):
    """A code as all packages write it in the end: lower case, no variation selector."""
    return "-".join(part for part in code.lower().split("-") if part != "fe0f")


def classes_of_codes(file):
    """Dict from the codes of the four categories to their classes, without variants of skin."""
    with tarfile.open(file) as package:
        entries = json.load(package.extractfile("package/emoji.json"))
    return {
        bare(entry["unified"]): CATEGORIES[entry["category"]]
        for entry in entries
        if entry["category"] in CATEGORIES
    }


def emoji(file, folder, classes):
    """Yields `(class, code, image)` of one vendor's emoji."""
    import resvg_py

    with tarfile.open(file) as package:
        for member in sorted(package.getmembers(), key=lambda member: member.name):
            path = Path(member.name)
            kind = classes.get(bare(path.stem))
            if kind is None or path.parent != Path("package", folder):
                continue
            encoded = package.extractfile(member).read()
            if path.suffix == ".svg":
                drawn = resvg_py.svg_to_bytes(svg_string=encoded.decode(), width=SIZE, height=SIZE)
                encoded = bytes(drawn)
            yield kind, bare(path.stem), on_white(encoded)


def clip_art(file, scratch):
    """Yields `(category, name, image)` of Debian's clip art; a damaged file is left out."""
    subprocess.run(["dpkg-deb", "-x", file, scratch], check=True)
    root = scratch / "usr/share/openclipart/png"
    for path in sorted(root.rglob("*.png")):
        try:
            image = on_white(path.read_bytes())
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
            continue
        inner = path.relative_to(root)
        yield inner.parts[0], "-".join(inner.with_suffix("").parts[1:]), image
    shutil.rmtree(scratch)


def write(images, folder):
    """Writes `(class, name, image)` as PNG files in one sub-folder for each class; counts them."""
    count = 0
    for kind, name, image in images:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        image.save(folder / kind / f"{name}.png")
        count += 1
    return count


def main():
    """Makes the folders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/colour"))
    out = parser.parse_args().out
    files = fetch(out / "packages")
    for name in ("emoji", "clip_art"):
        shutil.rmtree(out / name, ignore_errors=True)
    classes = classes_of_codes(files[TEST])
    counts = {}
    for vendor, (*_, folder) in NPM.items():
        split = "test" if vendor == TEST else "train"
        drawn = emoji(files[vendor], folder, classes)
        named = ((kind, f"{vendor}-{code}", image) for kind, code, image in drawn)
        counts[vendor] = write(named, out / "emoji" / split)
    counts["clip_art"] = write(clip_art(files["clip_art"], out / "unpacked"), out / "clip_art")
    licences = {vendor: licence for vendor, (_, _, licence, _) in NPM.items()}
    sources = {
        key: {
            "package": file.name,
            "licence": licences.get(key, "public domain"),
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "images": counts[key],
        }
        for key, file in files.items()
    }
    (out / "sources.json").write_text(json.dumps(sources, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(sources, indent=2))


if __name__ == "__main__":
    main()
