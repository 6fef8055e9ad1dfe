"""The processes: what hears of changes, gathers, asks the core, and carries out its plan."""
