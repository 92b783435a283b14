//! Examples: configurations pass `mxscreen check`, commands run beside a gate in the way of the page.

use std::{fs, path::Path, process::Command, time::Duration};

use screen_tests::{
    certificate::Certificate,
    documents::{Example, Page, pages},
    net::Net,
    postfix::Postfix,
    privilege::{has_mail_programs, mxscreen},
    stage,
};

/// Where examples have their files.
const PLACE: &str = "/etc/mxscreen/";

/// Files that configurations name, below [`PLACE`], and what is in them; certificates are made.
const FILES: [(&str, &str); 3] = [
    ("access.cidr", "198.51.100.0/24 reject\n"),
    ("postscreen_access.cidr", "198.51.100.0/24 reject\n"),
    ("credentials/redis", "secret\n"),
];

/// Files that commands read, in the directory where they are run.
const READ: [(&str, &str); 4] = [
    ("drop.txt", "; a list\n203.0.113.0/24 ; SBL1\n"),
    ("bans.json", r#"[{"decisions": [{"type": "ban", "scope": "Ip", "value": "203.0.113.9", "duration": "1h"}]}]"#),
    ("known.jsonl", ""),
    (
        "spamdb.txt",
        "WHITE|198.51.100.7|||1700000000|1700001500|4000000000|2|1\nGREY|198.51.100.8|x|a@x.example|b@x.example|1|2|3|1|0\n",
    ),
];

/// What the machine of an operator has, in the private view of it that [`stage`] makes.
const MACHINE: &str = "\
mount -t bpf none /sys/fs/bpf
useradd --system --shell /usr/sbin/nologin mxscreen
mkdir -p /etc/mxscreen /etc/postfix /var/lib/postfix /run/mxscreen /usr/local/sbin
ln -s \"$MXSCREEN\" /usr/local/sbin/mxscreen
cat > /etc/postfix/main.cf <<'END'
myhostname = mx.example.test
mynetworks = 127.0.0.0/8
postscreen_access_list = permit_mynetworks
postscreen_greet_action = enforce
END
cat > /etc/mxscreen/mxscreen.toml <<'END'
hostname = \"mx.example.test\"
END
echo '198.51.100.9 4000000000;0;0;0;0' > /var/lib/postfix/postscreen_cache
postmap btree:/var/lib/postfix/postscreen_cache
rm /var/lib/postfix/postscreen_cache
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
";

/// Runs the gate, the commands of a page, and sees that the gate stops.
const BESIDE_A_GATE: &str = "\
set -e
cd \"$1\"
setpriv --pdeathsig TERM mxscreen run &
until mxscreen status > /dev/null 2>&1; do
    kill -0 $!
    sleep 0.05
done
set -x
. ./commands
set +x
mxscreen stop --detach
wait $!
";

fn in_language(page: &Page, language: &str) -> Vec<Example> {
    page.examples().into_iter().filter(|example| example.language == language).collect()
}

#[test]
fn every_configuration_of_the_documents_is_right() {
    if !has_mail_programs() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    for (name, text) in FILES {
        fs::create_dir_all(place(name).parent().unwrap()).unwrap();
        fs::write(place(name), text).unwrap();
    }
    let made = Certificate::make(directory.path());
    for name in ["fullchain.pem", "redis-ca.pem"] {
        fs::copy(&made.certificate, place(name)).unwrap();
    }
    fs::copy(&made.key, place("privkey.pem")).unwrap();
    let mut checked = 0;
    for page in pages() {
        for example in in_language(&page, "toml") {
            let text = example.text.replace(PLACE, &format!("{}/", directory.path().display()));
            fs::write(place("mxscreen.toml"), &text).unwrap();
            let said = Command::new(mxscreen())
                .args(["check", "--config"])
                .arg(place("mxscreen.toml"))
                .env("CREDENTIALS_DIRECTORY", place("credentials"))
                .output()
                .unwrap();
            let shown = String::from_utf8_lossy(&said.stderr);
            assert!(said.status.success(), "{}:{}: {shown}\n{text}", page.path.display(), example.line);
            checked += 1;
        }
    }
    assert!(checked > 15, "{checked} configurations");
}

/// How long all commands of a page may take.
const LIMIT: Duration = Duration::from_secs(180);

/// Runs the commands of one page, each of its examples in turn.
fn run(net: &Net, page: &Page, examples: &[Example]) {
    let directory = net.directory().join(page.path.file_stem().unwrap());
    fs::create_dir_all(&directory).unwrap();
    let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
    for (name, text) in READ {
        write(name, text);
    }
    let commands: String = examples.iter().map(|example| example.text.as_str()).collect();
    write("commands", &commands);
    write("run.sh", BESIDE_A_GATE);
    let machine = format!("MXSCREEN={}\n{MACHINE}", mxscreen().display());
    let path = |path: &Path| path.display().to_string();
    let words = ["sh", &path(&directory.join("run.sh")), &path(&directory)];
    let status = stage::start(&net.edge, &directory, None, &machine, &words).wait(LIMIT);
    let said = fs::read_to_string(directory.join("output")).unwrap_or_default();
    assert!(status.success(), "{}: {status}\n{said}", page.path.display());
}

#[test]
fn every_command_of_the_documents_runs() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let mut pages_with_commands = 0;
    for page in pages() {
        let examples = in_language(&page, "sh");
        if !examples.is_empty() {
            run(&net, &page, &examples);
            pages_with_commands += 1;
        }
    }
    assert!(pages_with_commands >= 5, "{pages_with_commands} pages with commands");
}
