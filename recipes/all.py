"""Every table and figure of the D-TRAK paper for a bank, one after the other. What is finished is not measured again."""

from engine import RECIPES, main

if __name__ == "__main__":
    main(*RECIPES, doc=__doc__)
