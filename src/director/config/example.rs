//! The example that `-example` prints: every field, commented, with its default.

/// A file that validates; so does the one that remains when every `#` before a field is removed.
pub const TEXT: &str = r#"# vmetric.yml: the Director's configuration. `vmetric-director -validate FILE` checks it.
#
# Found as `run --config FILE`, else <state>/vmetric.yml, else /etc/vmetric/vmetric.yml. Options of the command line win.
# A change takes effect within 2 seconds, except what is marked (restart). Lines without `#` are in force.

# Host name or address that agents use. (restart)
#name: director.example.org

# Where agents and browsers reach the Director. (restart)
#listen:
#  - 0.0.0.0:8443

# Root metadata that `vmetric-release init` made; later ones are found from it. Required here or as --root. (restart)
#root: /etc/vmetric/root.json

# Your own certificate chain and key, for browsers and company-CA agents; read again when the files change. (restart)
#tls:
#  certificate: /etc/vmetric/tls.pem
#  key: /etc/vmetric/tls.key

# Where releases come from: a folder, or https:// with the pin of its CA. Without it: no outbound call.
#mirror:
#  from: https://releases.example.org
#  pin: sha256:0000000000000000000000000000000000000000000000000000000000000000

# The Fleet that manages this Director, which enrolls there by itself with the key in that file (mode 0600, of the service's
# user; below its state folder, so that it can be overwritten afterwards) or by `vmetric-director enroll --fleet`.
#fleet:
#  address: https://fleet.example.org:8443
#  pin: sha256:0000000000000000000000000000000000000000000000000000000000000000
#  key_file: /var/lib/vmetric-director/fleet.key

# The cluster that this Director is a member of: where agents reach each member, this one too. An odd number from 3 to 15. All
# have the same site CA (README, "Clusters").
#cluster:
#  members:
#    - https://director-1.example.org:8443
#    - https://director-2.example.org:8443
#    - https://director-3.example.org:8443

# Zone of all schedules below: Europe/Berlin, UTC, or local (the system's).
#time_zone: local

# This Director's own updates. Such a section wins over what Fleet says; without it, Fleet decides.
update:
  mode: manual               # manual: nothing is fetched or applied, not for agents either; auto
#  method: schedule          # user_action, immediate, schedule
#  version: "2.5.0"          # exact, or latest
#  cron: "0 2 * * 0"         # with method schedule: every Sunday at 2:00
#  interval: 1h              # with method schedule, when there is no cron; at least 30s, which is the default

# The default for this Director's agents.
#agents:
#  update:
#    mode: auto
#    method: schedule
#    version: latest
#    cron: "0 3 * * 1-5"

#retention:
#  activity: 90d
#  activity_bytes: 64MiB
#  backups: 5
#  backup_bytes: 2GiB

# Without a line: no limit (downloads: 64 at once).
#limits:
#  mirror_bytes: 20GiB       # artifacts in the mirror; what agents run, may go back to or are ordered is kept first
#  bytes_per_day: 50GiB      # of artifacts to all agents, from midnight to midnight in time_zone
#  bytes_per_second: 10MiB
#  downloads: 64
#  agent:
#    bytes_per_day: 1GiB     # to one agent
#    bytes_per_second: 1MiB
"#;
