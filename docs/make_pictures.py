"""Makes docs/pictures/ anew, from made-up pictures only.

    python docs/make_pictures.py [FOLDER]

Runs `ukan demo` in FOLDER (ukan-demo by default; minutes, or seconds where it is done already) and cuts its overlays, its
learning curve and parts of its pages. Pages are drawn by Chromium or Chrome, which must be on the PATH.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from ukan.data.phantoms import PHANTOMS, write_ultrasound
from ukan.imaging import read_image
from ukan.imaging.draw import draw_outline

PICTURES = Path(__file__).resolve().parent / "pictures"
GAP = 8
WIDTH, HIGHEST = 1000, 4000
"""Of a page, in pixels."""


def main() -> None:
    browser = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if browser is None:
        sys.exit("make_pictures: neither Chromium nor Chrome is on the PATH")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "ukan-demo").resolve()
    _ukan("demo", str(folder))
    checked = _checked(folder)
    run = folder / "runs" / "phantoms-ukan"
    report = (run / "report.html").read_text(encoding="utf-8")

    _save("phantoms.jpg", _beside([_phantom(kind) for kind in PHANTOMS]))
    overlays = sorted((folder / "masks" / "phantoms" / "overlays").glob("*.jpg"))[:4]
    _save("overlays.jpg", _beside([Image.fromarray(read_image(path)) for path in overlays]))
    _save("progress.png", Image.open(run / "fold_0" / "progress.png"))
    _save(
        "check.jpg", _shot(browser, checked, r'<section id="problems">.*?</section>', r'<section id="pairs">.*?</section>')
    )
    _save("check-cases.jpg", _shot(browser, checked, r'<section id="examples">(.*?</article>){4}'))
    _save("report-scores.png", _shot(browser, report, "<header>.*?</ul>", r'<section id="held-out">.*?</table>'))
    _save("report-fails.png", _shot(browser, report, r'<section id="spread">.*?</section>'))
    _save("report-cases.jpg", _shot(browser, report, r'<section id="cases">(.*?</article>){2}'))
    _save("report-quality.png", _shot(browser, report, r'<section id="quality">.*?</section>'))
    _save("report-samples.jpg", _shot(browser, report, r'<section id="samples">(.*?</article>){2}'))
    total = sum(path.stat().st_size for path in PICTURES.iterdir())
    print(f"{len(list(PICTURES.iterdir()))} pictures in {PICTURES}, {total / 1000:.0f} kB")


def _ukan(*words: str, cwd: Path | None = None, expect: int = 0) -> None:
    done = subprocess.run([sys.executable, "-m", "ukan_cli", *words], cwd=cwd)
    if done.returncode != expect:
        sys.exit(f"make_pictures: ukan {' '.join(words)}: exit code {done.returncode}")


def _checked(folder: Path) -> str:
    """The check page of a folder in which a few things are wrong."""
    data = folder / "data_raw" / "with-problems"
    shutil.rmtree(data, ignore_errors=True)
    write_ultrasound(data, 40, 1)
    for suffix in ("", "_mask"):
        shutil.copy(data / "benign" / f"benign (3){suffix}.png", data / "malignant" / f"malignant (99){suffix}.png")
    (data / "benign" / "benign (5)_mask.png").unlink()
    cut = data / "malignant" / "malignant (2).png"
    cut.write_bytes(cut.read_bytes()[:2000])
    _ukan("check", str(data.relative_to(folder)), "--dataset", "with-problems", cwd=folder, expect=4)
    return (folder / "plans" / "with-problems" / "check.html").read_text(encoding="utf-8")


def _phantom(kind: str) -> Image.Image:
    image, masks = PHANTOMS[kind].make(np.random.default_rng(5), 192, 256)
    image = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    return Image.fromarray(draw_outline(image, np.any(masks, axis=0) if masks else np.zeros(image.shape[:2], bool)))


def _beside(images: list[Image.Image], height: int = 200) -> Image.Image:
    scaled = [image.resize((round(image.width * height / image.height), height)) for image in images]
    sheet = Image.new("RGB", (sum(image.width for image in scaled) + GAP * (len(scaled) - 1), height), "white")
    left = 0
    for image in scaled:
        sheet.paste(image, (left, 0))
        left += image.width + GAP
    return sheet


def _shot(browser: str, page: str, *parts: str) -> Image.Image:
    """What some patterns match in a page, as a browser shows it, the empty rest cut away."""
    found = [re.search(part, page, re.DOTALL) for part in parts]
    if missing := [part for part, match in zip(parts, found, strict=True) if match is None]:
        sys.exit(f"make_pictures: the page has no part {missing[0]}")
    head = page[: page.index("<body>")]
    with tempfile.TemporaryDirectory() as scratch:
        source, shot = Path(scratch, "page.html"), Path(scratch, "page.png")
        source.write_text(f"{head}<body>{''.join(match[0] for match in found if match)}", encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={WIDTH},{HIGHEST}"]
        subprocess.run([browser, *options, f"--screenshot={shot}", source.as_uri()], check=True, capture_output=True)
        image = Image.open(shot).convert("RGB")
    box = ImageChops.difference(image, Image.new("RGB", image.size, image.getpixel((0, 0)))).getbbox()
    left, top, right, bottom = box or (0, 0, *image.size)
    width, height = image.size
    return image.crop((max(0, left - GAP), max(0, top - GAP), min(width, right + GAP), min(height, bottom + GAP)))


def _save(name: str, image: Image.Image) -> None:
    PICTURES.mkdir(exist_ok=True)
    if name.endswith(".png"):  # few colours: text and lines
        image.convert("RGB").quantize(64).save(PICTURES / name, optimize=True)
    else:
        image.convert("RGB").save(PICTURES / name, quality=75, optimize=True)


if __name__ == "__main__":
    main()
