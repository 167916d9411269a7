//! The Update Management panel of a detail view: the policy of one Director, cluster or agent.

use serde_json::{Value, json};

use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::words;

use super::directors::policy_words;

/// What counts for a Director, and who said so.
pub fn of_director(ask: &Ask, id: &str) -> Value {
    let tree = ask.site.tree.borrow().clone();
    let registry = ask.site.registry.borrow();
    let Ok(policy) = registry.node_policy(id, &tree.releases, ask.now) else { return Value::Null };
    let values: Vec<Value> = policy
        .values
        .iter()
        .map(|v| json!({"name": words::human(&v.field), "value": words::human(&v.value), "source": words::tier(&v.tier)}))
        .collect();
    let (words, source) = policy_words(Some(&policy));
    json!({"words": words, "source": source, "values": values})
}

/// What is said about an agent.
pub fn of_agent(_ask: &Ask, _director: &str, _agent: &str) -> Value {
    Value::Null
}
