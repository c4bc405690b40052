"""Folders and names as people have them. See `awkward`."""

from __future__ import annotations

import os
import shutil
import unicodedata

from awkward import Made, encoded, form, forms, pixels


@form
def a_link_as_class_folder(made: Made) -> None:
    outside = made.root.with_name("elsewhere")
    shutil.move(made.root / "train/dog", outside)
    (made.root / "train/dog").symlink_to(outside)


@form
def links_as_images(made: Made) -> None:
    outside = made.root.with_name("elsewhere.png")
    shutil.move(made.root / "train/dog/0.png", outside)
    (made.root / "train/dog/0.png").symlink_to(outside)


@form
def a_link_as_train(made: Made) -> None:
    shutil.move(made.root / "train", made.root.with_name("elsewhere"))
    (made.root / "train").symlink_to("../elsewhere")


@forms("links_in_a_circle", above="..", self=".", cat="../../train")
def _(made: Made, target: str) -> None:
    (made.root / "train/cat/loop").symlink_to(target)
    made.refused = "is a link to a folder that it is in itself"


@forms("a_link_that_leads_nowhere", image="train/cat/9.png", folder="train/emu")
def _(made: Made, where: str) -> None:
    (made.root / where).symlink_to("/no/such/place")
    made.refused = f"{where} is a link that leads nowhere"


@forms(
    "clutter",
    notebook=(".ipynb_checkpoints", "train/cat/.ipynb_checkpoints/0-checkpoint.png"),
    synology=("@eaDir", "train/cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.png"),
    finder=(".DS_Store", "train/.DS_Store"),
    windows=("Thumbs.db", "train/cat/thumbs.db"),
    windows_too=("desktop.ini", "test/desktop.ini"),
    mac_archive=("__MACOSX", "__MACOSX/train/cat/9.png"),
    apple_double=("._*", "train/cat/._0.png"),
    git=("other hidden files", ".git/train/cat/9.png"),
    hidden_image=("other hidden files", "train/cat/.9.png"),
    hidden_class=("other hidden files", "train/.emu/9.png"),
)
def _(made: Made, what: tuple[str, str]) -> None:
    kind, name = what
    path = made.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(pixels(80), "png"))
    made.ignored = {kind: 1}
    made.said = [f"left out: 1 {kind} ({name})"]


@forms(
    "other_ending", heic=("*.heic", "9.HEIC"), none=("files without an ending", "9"), odd=("files of other endings", "9.a-b")
)
def _(made: Made, what: tuple[str, str]) -> None:
    kind, name = what
    (made.root / "train/cat" / name).write_bytes(encoded(pixels(80), "png"))
    made.ignored = {f"{kind} in class folders": 1}
    made.said = [f"train/cat/{name}"]


@form
def a_readme(made: Made) -> None:
    (made.root / "README.txt").write_text("hello")
    made.said = ["left out: 1 other files (README.txt)"]


@form
def a_pipe(made: Made) -> None:
    os.mkfifo(made.root / "train/cat/9.png")
    made.refused = "is neither a file nor a folder"


@forms("an_archive_inside", zip="train/cats.zip", seven="more.7z", rar="train/cat/cats.rar")
def _(made: Made, name: str) -> None:
    (made.root / name).write_bytes(b"")
    made.refused = f"{name} is an archive inside the data set"


@forms("capitals", ending=("train/cat/0.png", "train/cat/0.PNG"), folder=("train", "TRAIN"), test=("test", "Test"))
def _(made: Made, names: tuple[str, str]) -> None:
    (made.root / names[0]).rename(made.root / names[1])


@form
def folders_too_deep(made: Made) -> None:
    (made.root / "train" / "/".join("x" * 80)).mkdir(parents=True)
    made.refused = "lies more than 64 folders deep"


@form
def a_link_to_itself(made: Made) -> None:
    (made.root / "train/emu").symlink_to("emu")
    made.refused = "train/emu is a link that leads nowhere"


@form
def two_spellings_of_train(made: Made) -> None:
    (made.root / "Train/emu").mkdir(parents=True)
    shutil.copy(made.root / "train/cat/0.png", made.root / "Train/emu")
    made.refused = "there are images under Train and train"


@forms("too_deep", below="train/cat/sub/9.png", above="train/9.png", beside="9.png")
def _(made: Made, name: str) -> None:
    (made.root / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(made.root / "train/cat/0.png", made.root / name)
    made.refused = f"{name} is not in a class folder"


@form
def an_empty_class_folder(made: Made) -> None:
    (made.root / "train/emu").mkdir()
    made.said = ["no images in train/emu"]


@form
def a_class_without_test_images(made: Made) -> None:
    made.add("train/emu/0", pixels(90))
    made.said = ["no test images of 'emu'"]


@form
def the_same_image_in_train_and_test(made: Made) -> None:
    made.add("test/cat/7", made.images["train/cat/1"])
    made.repeated = {"in train and in test": 1}
    made.said = ["1 image is in train and in test (train/cat/1 = test/cat/7)"]


@form
def the_same_image_in_two_classes(made: Made) -> None:
    made.add("train/dog/7", made.images["train/cat/1"])
    made.repeated = {"in two classes": 1}
    made.said = ["1 image is in two classes (train/cat/1 = train/dog/7)"]


# --- names -------------------------------------------------------------------------------------------------------------------

_NFC, _NFD = (unicodedata.normalize(kind, "Café") for kind in ("NFC", "NFD"))


@form
def one_name_in_two_spellings(made: Made) -> None:
    """Train came from a Mac, test from Linux."""
    for seed, key in enumerate((f"train/{_NFD}/é", f"train/{_NFC}/1", f"test/{_NFC}/0")):
        made.add(key, pixels(100 + seed))
    made.images = {unicodedata.normalize("NFC", key): array for key, array in made.images.items()}


@form
def two_files_of_one_name_in_two_spellings(made: Made) -> None:
    for name in (_NFC, _NFD):
        shutil.copy(made.root / "train/cat/0.png", made.root / f"train/cat/{name}.png")
    made.refused = "are the same image file"


@form
def a_class_in_capitals_in_one_split(made: Made) -> None:
    (made.root / "test/cat").rename(made.root / "test/Cat")
    made.refused = "class folders 'Cat' and 'cat' differ in capitals only, and one has no train or no test images"


@form
def letters_and_capitals_as_classes(made: Made) -> None:
    for seed, split in enumerate(("train", "test")):
        made.add(f"{split}/A/0", pixels(110 + seed))
        made.add(f"{split}/a/0", pixels(120 + seed))
    made.said = ["classes 'A' and 'a' differ in capitals only"]


@forms(
    "name",
    emoji="🐈‍⬛",
    hebrew="חתול",
    joined="\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    device="con",
    null="nul",
    number="07",
    markup="<img src=x onerror=alert(1)>",
    formula="=cmd|' !A0",
    quotes='it\'s "so"',
    backslash="a\\b",
    dots="a..b",
    long="ü" * 127,
    blank_inside="polar bear",
)
def _(made: Made, name: str) -> None:
    for seed, split in enumerate(("train", "test")):
        made.add(f"{split}/{name}/0", pixels(130 + seed))


@forms(
    "bad_name",
    newline=("a\nb", "control character"),
    escape=("a\x1b[31mb", "control character"),
    line_separator=("a\u2028b", "control character"),
    turned=("a\u202eb", "turns the direction of writing"),
    blank_first=(" a", "begins or ends with a blank"),
    blank_last=("a\u00a0", "begins or ends with a blank"),
)
def _(made: Made, how: tuple[str, str]) -> None:
    name, reason = how
    made.add(f"train/{name}/0", pixels(140))
    made.refused = reason


@forms("bad_bytes", folder=b"train/caf\xe9/0.png", file=b"train/cat/caf\xe9.png")
def _(made: Made, name: bytes) -> None:
    path = os.path.join(os.fsencode(made.root), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    shutil.copyfile(os.fsencode(made.root / "train/cat/0.png"), path)
    made.refused = "name is not UTF-8"


@form
def a_file_name_with_a_line_break(made: Made) -> None:
    made.add("train/cat/a\nb", pixels(141))
    made.refused = r"train/cat/a\nb.png"
