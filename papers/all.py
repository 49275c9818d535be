"""Every table and figure of the three papers for a bank, one after the other. What is finished is not
measured again."""

from papers._shared.command import main
from papers._shared.exhibit import EXHIBITS

if __name__ == "__main__":
    main(*EXHIBITS, doc=__doc__)
