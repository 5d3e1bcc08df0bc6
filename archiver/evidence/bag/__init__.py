"""Handing out: sessions as a BagIt bag, which proves itself without this program."""
