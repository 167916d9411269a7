//! The command that installs an agent on a new device: everything it trusts is in its text.
//!
//! It fetches three files and compares each with the SHA-256 in the text before the first of them is used:
//!
//! | file | from | trusted because |
//! |---|---|---|
//! | the site's CA certificates | `/dl/cert.pem`, over TLS that nobody vouches for yet | hash in the text; their first line has the pin |
//! | `root.json`, the newest root of the release plane | `/release/metadata/N.root.json` | hash in the text |
//! | the agent | `/dl/agent/<os>/<arch>?version=V` | hash in the text |
//!
//! The token is sent only once the CA is verified; it travels by a pipe and by the environment, never as an argument. Until its
//! hash is right the agent lies in a private folder in mode 600; whatever fails, that folder is removed and nothing is left
//! that could be executed.

/// What differs between the programs that are installed.
#[derive(Clone, Copy, Debug)]
pub struct Installed {
    /// Its name.
    program: &'static str,
    /// Where it is fetched.
    at: &'static str,
    /// Its option for whoever manages it.
    manager: &'static str,
    /// Where it takes its token from.
    variable: &'static str,
    /// More commands after it has enrolled: sh and PowerShell.
    after: [&'static str; 2],
}

/// An agent, by its Director.
pub static AGENT: &Installed =
    &Installed { program: "vmetric-agent", at: "/dl/agent", manager: "--director", variable: "VMETRIC_TOKEN", after: ["", ""] };
/// A Director, by Fleet; its mirror is Fleet's from then on.
pub static DIRECTOR: &Installed = &Installed {
    program: "vmetric-director",
    at: "/dl/director",
    manager: "--fleet",
    variable: "VMETRIC_FLEET_KEY",
    after: [
        "    [ -e \"$state/vmetric.yml\" ] ||\n        printf 'root: %s\\nmirror:\\n  from: %s/release\\n  pin: %s\\n' \"$dir/root.json\" \"$url\" \"$pin\" > \"$state/vmetric.yml\"\n",
        "        if (-not (Test-Path \"$state\\vmetric.yml\")) {\n            \"root: $dir\\root.json`nmirror:`n  from: $url/release`n  pin: $pin\" | Set-Content -Encoding Ascii \"$state\\vmetric.yml\"\n        }\n",
    ],
};

impl Default for &'static Installed {
    fn default() -> &'static Installed {
        AGENT
    }
}

/// What goes into the text.
#[derive(Clone, Debug, Default)]
pub struct Install {
    /// Which program.
    pub product: &'static Installed,
    /// `linux`, `darwin` or `windows`.
    pub os: String,
    /// `amd64`, `arm64`, `armv7`.
    pub arch: String,
    /// `https://host:port`.
    pub url: String,
    /// Pin of the agents' CA.
    pub pin: String,
    /// SHA-256 of `/dl/cert.pem`.
    pub certificates_sha256: String,
    /// Version of the newest root.
    pub root_version: u64,
    /// SHA-256 of it.
    pub root_sha256: String,
    /// Version of the agent.
    pub version: String,
    /// SHA-256 of it.
    pub agent_sha256: String,
    /// Enrollment token.
    pub token: String,
}

/// Systems that there is a command for.
pub const SYSTEMS: [&str; 3] = ["linux", "darwin", "windows"];

/// The text; `None` for another system.
pub fn command(install: &Install) -> Option<String> {
    // macOS has no sha256sum; all else that the text calls is there, in its first versions of the last ten years, too.
    let (text, sum) = match install.os.as_str() {
        "linux" => (UNIX, "sha256sum"),
        "darwin" => (UNIX, "shasum -a 256"),
        "windows" => (WINDOWS, ""),
        _ => return None,
    };
    // Every value is hex, digits, a version, or an address that the Director itself listens under: none has a quote in it.
    let quoted = |value: &str| value.chars().filter(|c| !c.is_whitespace() && !"'\"`$\\".contains(*c)).collect::<String>();
    let product = install.product;
    let after = product.after[usize::from(install.os == "windows")];
    let mut out = text.replace("{after}", after).replace("{sum}", sum);
    for (name, value) in
        [("{program}", product.program), ("{at}", product.at), ("{manager}", product.manager), ("{variable}", product.variable)]
    {
        out = out.replace(name, value);
    }
    for (name, value) in [
        ("{url}", &install.url),
        ("{pin}", &install.pin),
        ("{certificates}", &install.certificates_sha256),
        ("{root}", &install.root_sha256),
        ("{agent}", &install.agent_sha256),
        ("{os}", &install.os),
        ("{arch}", &install.arch),
        ("{version}", &install.version),
        ("{n}", &install.root_version.to_string()),
        ("{token}", &install.token),
    ] {
        out = out.replace(name, &quoted(value));
    }
    Some(out)
}

/// In a function, so that a text that was not pasted whole does nothing.
const UNIX: &str = r#"sh <<'VMETRIC'
install() {
    set -eu
    url='{url}'
    token='{token}'
    pin='{pin}'
    dir=${VMETRIC_DIR:-/opt/{program}} state=${VMETRIC_STATE:-/var/lib/{program}}
    umask 022
    mkdir -p "$dir"
    new=$(mktemp -d "$dir/.install.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    trap 'exit 1' HUP INT TERM
    umask 077
    fail() { echo "vmetric: $1; nothing was installed" >&2; exit 1; }
    fetch() {
        file=$1; shift
        status=$(curl -sS --proto =https --connect-timeout 20 --max-time 900 --max-filesize 268435456 -o "$new/$file" -w '%{http_code}' "$@") ||
            fail "$file cannot be fetched from $url"
        [ "$status" = 200 ] || fail "$file: the server answers $status $(head -c 400 "$new/$file")"
    }
    verify() {
        echo "$2  $new/$1" | {sum} -c - > /dev/null 2>&1 || fail "$1 is not the file that this command was made for (SHA-256 differs)"
    }
    fetch cert.pem --insecure "$url/dl/cert.pem"
    verify cert.pem {certificates}
    grep -qxF "vmetric site CA pin $pin" "$new/cert.pem" || fail "the pin is not this site's"
    fetch root.json --cacert "$new/cert.pem" "$url/release/metadata/{n}.root.json"
    verify root.json {root}
    printf 'header = "Authorization: Bearer %s"\n' "$token" |
        fetch {program} --cacert "$new/cert.pem" -K - "$url{at}/{os}/{arch}?version={version}"
    verify {program} {agent}
    chmod 644 "$new/root.json"
    chmod 755 "$new/{program}"
    mv -f "$new/root.json" "$dir/root.json"
    mv -f "$new/{program}" "$dir/{program}"
    {variable}=$token "$dir/{program}" enroll {manager} "$url" --pin "$pin" --state "$state"
{after}    echo "installed $dir/{program} {version}; as a service: $dir/{program} -service install --now --state $state"
    echo "or without one: $dir/{program} run --state $state"
}
install < /dev/null
VMETRIC
"#;

/// For PowerShell 5.1 and later with the `curl.exe` that Windows has had since 2018.
const WINDOWS: &str = r#"& {
    $ErrorActionPreference = 'Stop'
    $url = '{url}'
    $token = '{token}'
    $pin = '{pin}'
    $dir = if ($env:VMETRIC_DIR) { $env:VMETRIC_DIR } else { "$env:ProgramFiles\{program}" }
    $state = if ($env:VMETRIC_STATE) { $env:VMETRIC_STATE } else { "$env:ProgramData\{program}" }
    $new = Join-Path $dir ('.install.' + [guid]::NewGuid().ToString('N'))
    New-Item -ItemType Directory -Force $new | Out-Null
    function Fetch($file, $more, $config) {
        $all = @('-sS', '--fail', '--proto', '=https', '--ssl-no-revoke', '--connect-timeout', '20', '--max-time', '900', '-o', "$new\$file") + $more
        if ($config) { $config | & curl.exe -K - @all } else { & curl.exe @all }
        if ($LASTEXITCODE) { throw "vmetric: $file cannot be fetched; nothing was installed" }
    }
    function Verify($file, $sha256) {
        if ((Get-FileHash -Algorithm SHA256 "$new\$file").Hash -ne $sha256) {
            throw "vmetric: $file is not the file that this command was made for (SHA-256 differs); nothing was installed"
        }
    }
    try {
        Fetch 'cert.pem' @('--insecure', "$url/dl/cert.pem")
        Verify 'cert.pem' '{certificates}'
        if ((Get-Content "$new\cert.pem") -notcontains "vmetric site CA pin $pin") {
            throw 'vmetric: the pin is not this site''s; nothing was installed'
        }
        Fetch 'root.json' @('--cacert', "$new\cert.pem", "$url/release/metadata/{n}.root.json")
        Verify 'root.json' '{root}'
        $config = 'header = "Authorization: Bearer ' + $token + '"'
        Fetch '{program}.part' @('--cacert', "$new\cert.pem", "$url{at}/windows/{arch}?version={version}") $config
        Verify '{program}.part' '{agent}'
        Move-Item -Force "$new\root.json" "$dir\root.json"
        Move-Item -Force "$new\{program}.part" "$dir\{program}.exe"
        $env:{variable} = $token
        & "$dir\{program}.exe" enroll {manager} $url --pin $pin --state $state
        if ($LASTEXITCODE) { throw 'vmetric: not enrolled; the reason is above' }
{after}        & "$dir\{program}.exe" -service install --now --state $state
        if ($LASTEXITCODE) { throw 'vmetric: enrolled, but no service; the reason is above. Then: {program}.exe -service install --now' }
    } finally {
        Remove-Item -Recurse -Force $new -ErrorAction SilentlyContinue
        Remove-Item Env:{variable} -ErrorAction SilentlyContinue
    }
}
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn install(os: &str) -> String {
        let install = Install {
            product: AGENT,
            os: os.into(),
            arch: "amd64".into(),
            url: "https://d.example:8443".into(),
            pin: "sha256:pin".into(),
            certificates_sha256: "c1".into(),
            root_version: 7,
            root_sha256: "r1".into(),
            version: "2.5.0".into(),
            agent_sha256: "a1".into(),
            token: "vmt_x".into(),
        };
        command(&install).unwrap()
    }

    #[test]
    fn everything_is_verified_before_the_first_execution() {
        for (os, program, checks) in [
            (
                "linux",
                "\"$dir/vmetric-agent\" enroll",
                ["verify cert.pem c1", "grep -qxF", "verify root.json r1", "verify vmetric-agent a1"],
            ),
            (
                "windows",
                "& \"$dir\\vmetric-agent.exe\" enroll",
                ["Verify 'cert.pem' 'c1'", "-notcontains", "Verify 'root.json' 'r1'", "Verify 'vmetric-agent.part' 'a1'"],
            ),
        ] {
            let text = install(os);
            let executed = text.find(program).unwrap();
            assert!(checks.iter().all(|check| text.find(check).is_some_and(|at| at < executed)), "{text}");
            assert!(!text.replace("${VMETRIC", "").contains("{url}") && !text.contains("{pin}") && !text.contains("{token}"), "{text}");
            // The token only after the CA is verified, and never as an argument.
            assert!(text.find("Bearer").unwrap() > text.find(checks[1]).unwrap());
            assert!(!text.contains("--token"), "{text}");
            assert!(text[executed..].contains("-service install --now --state"), "{text}");
        }
        assert_eq!(install("darwin"), install("linux").replace("sha256sum", "shasum -a 256").replace("/linux/", "/darwin/"));
        assert_eq!(command(&Install { os: "plan9".into(), ..Default::default() }), None);
    }

    #[test]
    fn no_value_leaves_its_quotes() {
        let evil = Install { os: "linux".into(), url: "https://x'; rm -rf $HOME `id` \n#".into(), ..Default::default() };
        let text = command(&evil).unwrap();
        assert!(text.contains("url='https://x;rm-rfHOMEid#'\n"), "{text}");
    }
}
