//! Fields of forms: label, value as it was typed, help, and what is wrong beside it. The partial is `templates/field.html`.

use serde_json::{Value, json};

use super::form::{Errors, Form};

/// One field.
pub struct Input {
    json: Value,
}

impl Input {
    fn new(kind: &str, name: &str, label: &str) -> Input {
        let json = json!({
            "name": name, "id": format!("f-{name}"), "label": label, "value": "", "help": "", "error": "", "type": "text",
            "is_text": false, "is_area": false, "is_select": false, "is_radio": false, "is_tick": false,
            "options": [], "required": false, "checked": false, "list": [], "has_list": false, "autocomplete": "off",
            "only_if": "", "mono": false, "hint": "",
        });
        let mut input = Input { json };
        input.set(kind, true);
        input
    }

    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.json[key] = value.into();
    }

    /// One line.
    pub fn text(name: &str, label: &str) -> Input {
        Input::new("is_text", name, label)
    }

    /// One line that is not shown.
    pub fn password(name: &str, label: &str, autocomplete: &str) -> Input {
        Input::text(name, label).kind("password").auto(autocomplete)
    }

    /// Several lines.
    pub fn area(name: &str, label: &str) -> Input {
        Input::new("is_area", name, label)
    }

    /// One of a list: value, label.
    pub fn select(name: &str, label: &str, options: &[(&str, &str)]) -> Input {
        Input::new("is_select", name, label).options(options.iter().map(|(v, l)| (*v, *l, "")))
    }

    /// One of a few, all of them seen: value, label, what it means.
    pub fn radio(name: &str, label: &str, options: &[(&str, &str, &str)]) -> Input {
        Input::new("is_radio", name, label).options(options.iter().copied())
    }

    /// Yes or no.
    pub fn tick(name: &str, label: &str) -> Input {
        Input::new("is_tick", name, label).value("on")
    }

    fn options<'a>(mut self, options: impl Iterator<Item = (&'a str, &'a str, &'a str)>) -> Input {
        let name = self.json["name"].as_str().unwrap_or_default().to_string();
        let all: Vec<Value> = options
            .map(|(v, l, help)| json!({"value": v, "label": l, "help": help, "name": name, "id": format!("f-{name}-{v}"), "chosen": false}))
            .collect();
        self.set("options", all);
        self
    }

    /// `password`, `number`, `email`, ...
    pub fn kind(mut self, kind: &str) -> Input {
        self.set("type", kind);
        self
    }

    /// What the browser may fill in.
    pub fn auto(mut self, autocomplete: &str) -> Input {
        self.set("autocomplete", autocomplete);
        self
    }

    /// What stands in it.
    pub fn value(mut self, value: &str) -> Input {
        if let Some(options) = self.json["options"].as_array_mut() {
            for option in options {
                let chosen = option["value"] == value;
                option["chosen"] = chosen.into();
            }
        }
        self.set("value", value);
        self
    }

    /// Ticked.
    pub fn checked(mut self, checked: bool) -> Input {
        self.set("checked", checked);
        self
    }

    /// One sentence below it.
    pub fn help(mut self, help: &str) -> Input {
        self.set("help", help);
        self
    }

    /// It must be filled in.
    pub fn required(mut self) -> Input {
        self.set("required", true);
        self
    }

    /// Values that are offered while typing.
    pub fn suggest(mut self, values: &[String]) -> Input {
        self.set("list", values.to_vec());
        self.set("has_list", !values.is_empty());
        self
    }

    /// What may be typed, shown while nothing is; the label says what the field is.
    pub fn hint(mut self, hint: &str) -> Input {
        self.set("hint", hint);
        self
    }

    /// A program's text: fixed width.
    pub fn mono(mut self) -> Input {
        self.set("mono", true);
        self
    }

    /// Shown only while another field has one of these values (`mode=auto`, `method=schedule|immediate`); the script does it,
    /// and without it the field is there and its help says when it counts.
    pub fn only_if(mut self, condition: &str) -> Input {
        self.set("only_if", condition);
        self
    }

    /// What was typed, and what is wrong with it.
    pub fn typed(self, form: &Form, errors: &Errors) -> Input {
        let name = self.json["name"].as_str().unwrap_or_default().to_string();
        let tick = self.json["is_tick"] == true;
        let mut input = if tick { self.checked(form.has(&name)) } else { self.value(form.get(&name)) };
        input.set("error", errors.of(&name));
        input
    }

    /// What is wrong with it.
    pub fn error(mut self, says: &str) -> Input {
        self.set("error", says);
        self
    }

    /// For the template.
    pub fn json(self) -> Value {
        self.json
    }
}
