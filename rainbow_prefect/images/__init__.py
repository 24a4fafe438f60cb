"""Container images from user code: what goes into each (`recipes`), what is to be done (`decide`), and doing it (`build`).

Nothing is imported here: to know that nothing changed takes little.
"""
