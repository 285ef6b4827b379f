"""How far two predictors are apart, why, and the page that says so."""
