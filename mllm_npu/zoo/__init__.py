"""Models that others have made or that others take: cards, import, export, their layouts."""
