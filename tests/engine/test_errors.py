import pytest
from torch.utils.data import DataLoader, Dataset

from mutual_guidance.data import DatasetError
from mutual_guidance.engine.errors import sentence


class Broken(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise DatasetError("a.jpg: torn; replace it")


@pytest.mark.parametrize("workers", [0, 1])
def test_sentence_of_an_error_in_a_worker(workers):
    with pytest.raises(DatasetError) as error:
        next(iter(DataLoader(Broken(), num_workers=workers)))
    assert sentence(error.value) == "a.jpg: torn; replace it"
