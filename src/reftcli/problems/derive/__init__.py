"""Programs derived from what data sets already hold: calculator annotations, formulas, equations."""
