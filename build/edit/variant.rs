//! Which form an edit has for a pin.

use super::Edit;

impl Edit {
    /// The forms that this edit may have in a tree that is of the first of `pins`, or between it and the others, the
    /// likeliest first. Empty: the tree does without it.
    pub fn forms(&self, pins: &[&str]) -> Vec<&Edit> {
        if let (Some(own), Some(first)) = (&self.pins, pins.first())
            && !own.iter().any(|pin| pin == first)
        {
            return Vec::new();
        }
        let mut forms: Vec<&Edit> = Vec::new();
        for pin in pins {
            let variant = self.variant.iter().find(|(name, _)| name == pin);
            let form = variant.map_or(self, |(_, edit)| edit);
            if !forms.iter().any(|known| std::ptr::eq(*known, form)) {
                forms.push(form);
            }
        }
        forms
    }

    /// The pins that this edit names.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        let variants = self.variant.iter().map(|(name, _)| name.as_str());
        self.pins.iter().flatten().map(String::as_str).chain(variants)
    }

    /// What the edit puts into the file.
    pub fn text(&self) -> &str {
        let texts = [&self.before, &self.after, &self.replace];
        texts.into_iter().flatten().next().map_or("", String::as_str)
    }
}
