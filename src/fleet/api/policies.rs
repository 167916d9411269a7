//! Routes of policies and clusters, beside those of [`super::routes`].

use super::fields::Parsed;
use super::records::*;
use super::routes::{Command, PLAIN, Route};
use super::values::*;
use crate::core::access::Act;
use crate::core::reason::Reason;
use crate::director::policing::rows::Scope;

pub(super) const AGENTS_POLICY: Route = Route {
    path: "/api/v1/agents/policy",
    id: "agentsPolicy",
    about: "Update settings for agents: of all, of those of one Director or cluster, or of a single one, as Fleet hands them down.",
    query: WHOSE,
    base: |p| p.wire.act = Some("show".into()),
    then: for_agents,
    command: Command::Admin("policy"),
    answer: "Policy",
    ..PLAIN
};
pub(super) const SET_AGENTS_POLICY: Route = Route {
    method: "PATCH",
    path: "/api/v1/agents/policy",
    id: "setAgentsPolicy",
    about: "Sets what is named for agents: of all, of those of one Director or cluster, or of a single one; it is in force there at once.",
    need: Some(Act::EditPolicy),
    query: WHOSE,
    body: Some(POLICY),
    base: |p| p.wire.act = Some("set".into()),
    then: for_agents,
    command: Command::Admin("policy"),
    answer: "Policy",
    ..PLAIN
};
pub(super) const POLICY_HISTORY: Route = Route {
    path: "/api/v1/policy/history",
    id: "policyHistory",
    about: "Who changed which settings, when, before and after; newest first.",
    query: HISTORY,
    base: |p| p.wire.act = Some("history".into()),
    then: |p| {
        p.wire.all = p.wire.scope.is_none().then_some(true);
        Ok(())
    },
    command: Command::Admin("policy"),
    answer: "PolicyHistory",
    ..PLAIN
};
pub(super) const CHECK_POLICY: Route = Route {
    method: "POST",
    path: "/api/v1/policy/check",
    id: "checkPolicy",
    about: "What a change would come to: every problem, what will never act, the next times. Nothing is changed.",
    need: Some(Act::EditPolicy),
    query: WOULD,
    body: Some(POLICY),
    base: |p| p.wire.act = Some("check".into()),
    command: Command::Admin("policy"),
    answer: "PolicyCheck",
    ..PLAIN
};
pub(super) const CLUSTERS: Route = Route {
    path: "/api/v1/clusters",
    id: "clusters",
    about: "Clusters of Directors, by name.",
    base: |p| p.wire.act = Some("list".into()),
    command: Command::Admin("cluster"),
    answer: "Clusters",
    ..PLAIN
};
pub(super) const CREATE_CLUSTER: Route = Route {
    method: "POST",
    path: "/api/v1/clusters",
    id: "createCluster",
    about: "Makes a cluster; its members' policy is the cluster's from now on.",
    need: Some(Act::EditPolicy),
    body: Some(NEW_CLUSTER),
    base: |p| p.wire.act = Some("create".into()),
    command: Command::Admin("cluster"),
    success: 201,
    answer: "Clusters",
    ..PLAIN
};
pub(super) const CLUSTER: Route = Route {
    path: "/api/v1/clusters/{cluster}",
    id: "cluster",
    about: "One cluster and its members.",
    place: Some(OF_CLUSTER),
    base: |p| p.wire.act = Some("show".into()),
    command: Command::Admin("cluster"),
    answer: "Clusters",
    ..PLAIN
};
pub(super) const CHANGE_CLUSTER: Route = Route {
    method: "PATCH",
    path: "/api/v1/clusters/{cluster}",
    id: "changeCluster",
    about: "Another name or other members.",
    need: Some(Act::EditPolicy),
    place: Some(OF_CLUSTER),
    body: Some(CLUSTER_CHANGES),
    base: |p| p.wire.act = Some("change".into()),
    command: Command::Admin("cluster"),
    answer: "Clusters",
    ..PLAIN
};
pub(super) const PAUSE_CLUSTER: Route = Route {
    method: "POST",
    path: "/api/v1/clusters/{cluster}/pause",
    id: "pauseCluster",
    about: "No other member is updated until resume; one that is away comes back first.",
    need: Some(Act::Cancel),
    place: Some(OF_CLUSTER),
    body: Some(STOP),
    base: |p| p.wire.act = Some("pause".into()),
    command: Command::Admin("cluster"),
    answer: "Clusters",
    ..PLAIN
};
pub(super) const RESUME_CLUSTER: Route = Route {
    method: "POST",
    path: "/api/v1/clusters/{cluster}/resume",
    id: "resumeCluster",
    about: "It goes on: what halted it counts as seen to.",
    need: Some(Act::Cancel),
    place: Some(OF_CLUSTER),
    base: |p| p.wire.act = Some("resume".into()),
    command: Command::Admin("cluster"),
    answer: "Clusters",
    ..PLAIN
};
pub(super) const ABORT_CLUSTER: Route = Route {
    method: "POST",
    path: "/api/v1/clusters/{cluster}/abort",
    id: "abortCluster",
    about: "Ends the roll-out for the members that have not begun.",
    need: Some(Act::Cancel),
    place: Some(OF_CLUSTER),
    body: Some(STOP),
    base: |p| p.wire.act = Some("abort".into()),
    command: Command::Admin("cluster"),
    answer: "Clusters",
    ..PLAIN
};
pub(super) const OVERRIDE_CLUSTER: Route = Route {
    method: "POST",
    path: "/api/v1/clusters/{cluster}/override",
    id: "overrideCluster",
    about: "One member may go within the hour, whatever the others do; without `force` it only says what that costs (409, quorum_cost).",
    need: Some(Act::Remove),
    place: Some(OF_CLUSTER),
    body: Some(OVERRIDE),
    base: |p| p.wire.act = Some("override".into()),
    command: Command::Admin("cluster"),
    answer: "Clusters",
    ..PLAIN
};
pub(super) const REMOVE_CLUSTER: Route = Route {
    method: "DELETE",
    path: "/api/v1/clusters/{cluster}",
    id: "removeCluster",
    about: "Dissolves a cluster; its members' own settings count again. Answers what is left.",
    need: Some(Act::EditPolicy),
    place: Some(OF_CLUSTER),
    base: |p| p.wire.act = Some("remove".into()),
    command: Command::Admin("cluster"),
    answer: "Clusters",
    ..PLAIN
};
pub(super) const CLUSTER_POLICY: Route = Route {
    path: "/api/v1/clusters/{cluster}/policy",
    id: "clusterPolicy",
    about: "What counts for the members of a cluster.",
    place: Some(OF_CLUSTER),
    base: |p| p.wire.act = Some("show".into()),
    command: Command::Admin("policy"),
    answer: "Policy",
    ..PLAIN
};
pub(super) const SET_CLUSTER_POLICY: Route = Route {
    method: "PATCH",
    path: "/api/v1/clusters/{cluster}/policy",
    id: "setClusterPolicy",
    about: "Sets what is named for the members of a cluster; the rest stays.",
    need: Some(Act::EditPolicy),
    place: Some(OF_CLUSTER),
    body: Some(POLICY),
    base: |p| p.wire.act = Some("set".into()),
    command: Command::Admin("policy"),
    answer: "Policy",
    ..PLAIN
};

pub(super) const TEMPLATES: Route = Route {
    path: "/api/v1/templates",
    id: "templates",
    about: "Enrollment templates: devices that enrolled and may, time limit, status, policy.",
    base: |p| p.wire.act = Some("list".into()),
    command: Command::Admin("template"),
    answer: "Templates",
    ..PLAIN
};
pub(super) const CREATE_TEMPLATE: Route = Route {
    method: "POST",
    path: "/api/v1/templates",
    id: "createTemplate",
    about: "Makes a template and the install commands of it, which are in this answer and nowhere else.",
    need: Some(Act::Enroll),
    body: Some(NEW_TEMPLATE),
    base: |p| p.wire.act = Some("create".into()),
    command: Command::Admin("template"),
    success: 201,
    answer: "Templates",
    ..PLAIN
};
pub(super) const TEMPLATE: Route = Route {
    path: "/api/v1/templates/{template}",
    id: "template",
    about: "One enrollment template.",
    place: Some(OF_TEMPLATE),
    base: |p| p.wire.act = Some("show".into()),
    command: Command::Admin("template"),
    answer: "Templates",
    ..PLAIN
};
pub(super) const CHANGE_TEMPLATE: Route = Route {
    method: "PATCH",
    path: "/api/v1/templates/{template}",
    id: "changeTemplate",
    about: "Changes what is named; its command stays good.",
    need: Some(Act::Enroll),
    place: Some(OF_TEMPLATE),
    body: Some(TEMPLATE_CHANGES),
    base: |p| p.wire.act = Some("change".into()),
    command: Command::Admin("template"),
    answer: "Templates",
    ..PLAIN
};
pub(super) const RENEW_TEMPLATE: Route = Route {
    method: "POST",
    path: "/api/v1/templates/{template}/renew",
    id: "renewTemplate",
    about: "New install commands; those before are worth nothing.",
    need: Some(Act::Enroll),
    place: Some(OF_TEMPLATE),
    body: Some(&[]),
    base: |p| p.wire.act = Some("renew".into()),
    command: Command::Admin("template"),
    answer: "Templates",
    ..PLAIN
};
pub(super) const REMOVE_TEMPLATE: Route = Route {
    method: "DELETE",
    path: "/api/v1/templates/{template}",
    id: "removeTemplate",
    about: "Removes a template; who enrolled with it stays. Answers what is left.",
    need: Some(Act::Enroll),
    place: Some(OF_TEMPLATE),
    base: |p| p.wire.act = Some("remove".into()),
    command: Command::Admin("template"),
    answer: "Templates",
    ..PLAIN
};
pub(super) const WEBHOOKS: Route = Route {
    path: "/api/v1/webhooks",
    id: "webhooks",
    about: "Where notices go; never their secrets.",
    base: |p| p.wire.act = Some("list".into()),
    command: Command::Admin("webhook"),
    answer: "Webhooks",
    ..PLAIN
};
pub(super) const CREATE_WEBHOOK: Route = Route {
    method: "POST",
    path: "/api/v1/webhooks",
    id: "createWebhook",
    about: "Makes a webhook; the secret of its signatures is in this answer and nowhere else.",
    need: Some(Act::Notify),
    body: Some(NEW_WEBHOOK),
    base: |p| p.wire.act = Some("create".into()),
    command: Command::Admin("webhook"),
    success: 201,
    answer: "Webhooks",
    ..PLAIN
};
pub(super) const CHANGE_WEBHOOK: Route = Route {
    method: "PATCH",
    path: "/api/v1/webhooks/{webhook}",
    id: "changeWebhook",
    about: "Another address, other events, or off and on.",
    need: Some(Act::Notify),
    place: Some(OF_WEBHOOK),
    body: Some(WEBHOOK_CHANGES),
    base: |p| p.wire.act = Some("change".into()),
    command: Command::Admin("webhook"),
    answer: "Webhooks",
    ..PLAIN
};
pub(super) const TEST_WEBHOOK: Route = Route {
    method: "POST",
    path: "/api/v1/webhooks/{webhook}/test",
    id: "testWebhook",
    about: "Sends a test at once, and says how it was answered.",
    need: Some(Act::Notify),
    place: Some(OF_WEBHOOK),
    body: Some(&[]),
    base: |p| p.wire.act = Some("test".into()),
    command: Command::Admin("webhook"),
    answer: "Webhooks",
    ..PLAIN
};
pub(super) const REMOVE_WEBHOOK: Route = Route {
    method: "DELETE",
    path: "/api/v1/webhooks/{webhook}",
    id: "removeWebhook",
    about: "Removes a webhook and what waits for it. Answers what is left.",
    need: Some(Act::Notify),
    place: Some(OF_WEBHOOK),
    base: |p| p.wire.act = Some("remove".into()),
    command: Command::Admin("webhook"),
    answer: "Webhooks",
    ..PLAIN
};
/// Which agents settings are for.
fn for_agents(parsed: &mut Parsed) -> Result<(), Reason> {
    if parsed.wire.cluster.is_some() && (parsed.director.is_some() || parsed.agent.is_some()) {
        return Err(Reason::new("bad_request", "cluster: either a cluster, or a director"));
    }
    let scope = match (parsed.director.take(), parsed.agent.take()) {
        (None, None) => Scope::Agents,
        (Some(director), None) => Scope::AgentsOf(director),
        (Some(director), Some(agent)) => Scope::AgentOf(director, agent),
        (None, Some(_)) => return Err(Reason::new("bad_request", "agent: needs its director beside it")),
    };
    parsed.wire.scope = Some(scope.key());
    Ok(())
}
