"""The main job in small: a corpus made by code, or the user's own folders, through convert, train and evaluate."""
