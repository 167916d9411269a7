//! Wizards: a few steps, one form each. What was typed in the other steps travels along as hidden fields, so the server
//! keeps nothing of a wizard that nobody finishes, Back loses nothing, and all of it works without JavaScript.

use serde_json::{Value, json};

use super::ask::Ask;
use super::form::{Errors, Form};

/// A wizard's frame.
pub struct Wizard {
    /// Names of the steps; the last one shows what came of it and has no form.
    pub steps: &'static [&'static str],
    /// Label of the button that does it.
    pub done: &'static str,
}

/// Where somebody is.
pub struct At {
    /// The step that is to be shown.
    pub step: usize,
    /// Every step's form was good: do it.
    pub finish: bool,
    /// What is wrong in the step that was sent.
    pub errors: Errors,
}

/// Fields that are the wizard's own.
const OWN: [&str; 3] = ["csrf", "step", "go"];

impl Wizard {
    /// Takes what was sent: `check` looks at one step.
    pub fn at(&self, ask: &Ask, check: impl Fn(usize, &Form) -> Errors) -> At {
        let forms = self.steps.len() - 1;
        let here = ask.form.get("step").parse::<usize>().unwrap_or(0).min(forms - 1);
        if !ask.is_form {
            return At { step: 0, finish: false, errors: Errors::default() };
        }
        if ask.form.get("go") == "back" {
            return At { step: here.saturating_sub(1), finish: false, errors: Errors::default() };
        }
        // Every step up to this one again: hidden fields are typed by whoever likes to.
        let wrong = (0..=here).map(|step| (step, check(step, &ask.form))).find(|(_, errors)| !errors.is_empty());
        match wrong {
            Some((step, errors)) => At { step, finish: false, errors },
            None if here + 1 == forms => At { step: here, finish: true, errors: Errors::default() },
            None => At { step: here + 1, finish: false, errors: Errors::default() },
        }
    }

    /// For the template `wizard`: the steps, and what the other ones hold. `names` are this step's fields.
    pub fn frame(&self, ask: &Ask, step: usize, names: &[&str], problem: &str) -> Value {
        let forms = self.steps.len() - 1;
        let steps: Vec<Value> =
            self.steps.iter().enumerate().map(|(at, name)| json!({"name": name, "here": at == step, "past": at < step})).collect();
        let others = ask.form.raw().pairs().iter().filter(|(name, _)| !OWN.contains(&name.as_str()) && !names.contains(&name.as_str()));
        let hidden: Vec<Value> = others.map(|(name, value)| json!({"name": name, "value": value})).collect();
        json!({
            "steps": steps,
            "name": self.steps[step],
            "step": step,
            "first": step == 0,
            "hidden": hidden,
            "action": ask.path,
            "csrf": ask.who.csrf,
            "button": if step + 1 == forms { self.done } else { "Next" },
            "problem": problem,
        })
    }
}
