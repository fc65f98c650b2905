//! The row of a pod: the one column "Status" sums up phase, conditions and every container's state.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    Column, Layout, age,
    cells::{NONE, int_at, list_at, of_type, or, str_at, text},
    duration::{human_duration, parse},
};

pub(super) static LAYOUT: Layout = Layout {
    columns: &[
        Column::name("The pod's name."),
        Column::new("Ready", "string", "Containers ready, of all containers."),
        Column::new("Status", "string", "What its containers are doing, in one word."),
        Column::new(
            "Restarts",
            "string",
            "How often its containers were restarted, and when last.",
        ),
        Column::age(),
        Column::new("IP", "string", "The pod's address.").wide(),
        Column::new("Node", "string", "The node it is bound to.").wide(),
        Column::new(
            "Nominated Node",
            "string",
            "The node where room is being made for it.",
        )
        .wide(),
        Column::new("Readiness Gates", "string", "Readiness gates passed, of all.").wide(),
    ],
    cells,
    conditions,
};

fn cells(pod: &Value, now: OffsetDateTime) -> Vec<Value> {
    let summary = Summary::of(pod);
    let ip = list_at(pod, "/status/podIPs").first().map(|ip| str_at(ip, "/ip"));
    let wide = |text: &str| Value::from(or(text, NONE));
    vec![
        text(pod, "/metadata/name"),
        format!("{}/{}", summary.ready, summary.containers).into(),
        summary.reason.clone().into(),
        summary.restarts(now).into(),
        age(pod, now),
        wide(ip.unwrap_or_else(|| str_at(pod, "/status/podIP"))),
        wide(str_at(pod, "/spec/nodeName")),
        wide(str_at(pod, "/status/nominatedNodeName")),
        readiness_gates(pod).into(),
    ]
}

/// kubectl hides finished pods by these where it is asked to.
fn conditions(pod: &Value) -> Option<Value> {
    let (reason, message) = match str_at(pod, "/status/phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

#[derive(Default)]
struct Summary {
    containers: usize,
    ready: usize,
    restarts: Restarts,
    /// Those of sidecars (init containers that are restarted): they count on once the pod is initialized.
    sidecar_restarts: Restarts,
    reason: String,
}

#[derive(Default, Clone, Copy)]
struct Restarts {
    count: i64,
    last: Option<OffsetDateTime>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += int_at(status, "/restartCount");
        let finished = parse(str_at(status, "/lastState/terminated/finishedAt"));
        self.last = self.last.max(finished);
    }
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let sidecars = list_at(pod, "/spec/initContainers")
            .iter()
            .filter(|container| is_sidecar(container));
        let mut summary = Self {
            containers: list_at(pod, "/spec/containers").len() + sidecars.count(),
            reason: initial_reason(pod),
            ..Self::default()
        };
        let initializing = summary.add_init_containers(pod);
        if !initializing || has_condition(pod, "Initialized") {
            summary.restarts = summary.sidecar_restarts;
            summary.add_containers(pod);
        }
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            let terminal = matches!(str_at(pod, "/status/phase"), "Succeeded" | "Failed");
            if str_at(pod, "/status/reason") == "NodeLost" {
                summary.reason = "Unknown".into();
            } else if !terminal {
                summary.reason = "Terminating".into();
            }
        }
        summary
    }

    /// Whether the pod is still at one of them.
    fn add_init_containers(&mut self, pod: &Value) -> bool {
        let specs = list_at(pod, "/spec/initContainers");
        for (at, status) in list_at(pod, "/status/initContainerStatuses").iter().enumerate() {
            let sidecar = specs
                .iter()
                .any(|spec| spec["name"] == status["name"] && is_sidecar(spec));
            self.restarts.add(status);
            if sidecar {
                self.sidecar_restarts.add(status);
            }
            let terminated = &status["state"]["terminated"];
            if terminated.is_object() && int_at(terminated, "/exitCode") == 0 {
                continue;
            }
            if sidecar && status["started"] == true {
                self.ready += usize::from(status["ready"] == true);
                continue;
            }
            let waiting = str_at(status, "/state/waiting/reason");
            self.reason = match () {
                () if terminated.is_object() => format!("Init:{}", ending(terminated)),
                () if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
                () => format!("Init:{at}/{}", specs.len()),
            };
            return true;
        }
        false
    }

    fn add_containers(&mut self, pod: &Value) {
        let mut running = false;
        // The first container's reason is the one that stays.
        for status in list_at(pod, "/status/containerStatuses").iter().rev() {
            self.restarts.add(status);
            let waiting = str_at(status, "/state/waiting/reason");
            let terminated = &status["state"]["terminated"];
            if !waiting.is_empty() {
                self.reason = waiting.into();
            } else if terminated.is_object() {
                self.reason = ending(terminated);
            } else if status["ready"] == true && status["state"]["running"].is_object() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            self.reason = if has_condition(pod, "Ready") {
                "Running"
            } else {
                "NotReady"
            }
            .into();
        }
    }

    fn restarts(&self, now: OffsetDateTime) -> String {
        match self.restarts {
            Restarts {
                count,
                last: Some(last),
            } if count != 0 => {
                format!("{count} ({} ago)", human_duration(now - last))
            }
            Restarts { count, .. } => count.to_string(),
        }
    }
}

fn initial_reason(pod: &Value) -> String {
    let scheduled = of_type(list_at(pod, "/status/conditions"), "PodScheduled");
    if scheduled.is_some_and(|condition| condition["reason"] == "SchedulingGated") {
        return "SchedulingGated".into();
    }
    or(str_at(pod, "/status/reason"), str_at(pod, "/status/phase"))
}

/// How a terminated container ended.
fn ending(terminated: &Value) -> String {
    match (str_at(terminated, "/reason"), int_at(terminated, "/signal")) {
        ("", 0) => format!("ExitCode:{}", int_at(terminated, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.into(),
    }
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn has_condition(pod: &Value, kind: &str) -> bool {
    of_type(list_at(pod, "/status/conditions"), kind).is_some_and(|condition| condition["status"] == "True")
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list_at(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return NONE.into();
    }
    let passed = gates
        .iter()
        .filter(|gate| has_condition(pod, str_at(gate, "/conditionType")));
    format!("{}/{}", passed.count(), gates.len())
}
