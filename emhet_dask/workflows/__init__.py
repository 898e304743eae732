"""One file per command: open, call `analysis`, store the stage, call `report`.

The only floor where the rooms below meet.
"""
