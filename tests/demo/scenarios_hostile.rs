//! Somebody means harm: a mirror's file, a whole Director, an old version with a known hole.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use vmetric::director::records::Order;
use vmetric::director::store::{Change, Store, Table};
use vmetric::director::views::StatusView;

use crate::build::{FACTORY, GOOD, RAISED, RAISED_COUNTER, TAMPERED, platform};
use crate::release::OTHER_PLATFORM;
use crate::scenarios::{Cast, Untouched, ended, same};
use crate::show::Row;
use crate::site::Site;

/// (e) One byte of the mirrored copy is another one.
pub fn tampered(cast: &Cast) -> Result<Row, String> {
    let device = cast.device("device-e")?;
    let before = Untouched::look(&device)?;
    let sha256 = cast.sha256(TAMPERED)?;
    let folder = cast.site.state.join("release/targets/vmetric-agent").join(TAMPERED).join(platform());
    // Nobody needs this version yet: its file is here only because a person brings it.
    cast.site.ask::<StatusView>(&format!("mirror --file {}", cast.stage.release.tree.display()))?;
    device.say(&format!("flips one byte of {TAMPERED} in the Director's mirror"));
    flip_byte(&folder.join(format!("{sha256}.vmetric-agent")))?;
    let clock = cast.clock();
    let result = device.order(TAMPERED, "", 40)?;
    let row = clock.row(&result);
    ended(&result, "refused", "", "file_hash")?;
    before.still(&device)?;
    Ok(row)
}

/// Changes one byte in the middle of a file, in place.
pub fn flip_byte(path: &Path) -> Result<(), String> {
    let flip = || -> std::io::Result<()> {
        let mut file = std::fs::File::options().read(true).write(true).open(path)?;
        let middle = SeekFrom::Start(file.metadata()?.len() / 2);
        let mut byte = [0];
        file.seek(middle)?;
        file.read_exact(&mut byte)?;
        file.seek(middle)?;
        file.write_all(&[byte[0] ^ 1])
    };
    flip().map_err(|e| format!("{}: {e}", path.display()))
}

/// What is ordered, the code it is refused with, and how the order is made so.
type Attack<'a> = (&'a str, &'a str, &'a dyn Fn(&mut Order));

/// (f) Whoever has the Director has its database, its key and its credentials. He writes the orders he likes.
pub fn stolen(cast: &Cast) -> Result<Row, String> {
    let site = cast.own_site()?;
    let device = cast.device_at(&site, "device-f")?;
    let slots = device.status()?.slots;
    let clock = cast.clock();
    let other = format!("vmetric-agent/{GOOD}/{OTHER_PLATFORM}/vmetric-agent.exe");
    let attacks: [Attack; 2] = [
        ("another platform's file", "wrong_platform", &|order| order.target = other.clone()),
        ("another hash, of a file that nobody signed", "order_mismatch", &|order| order.sha256 = "66".repeat(32)),
    ];
    let mut last = None;
    for (what, code, forge) in attacks {
        let before = device.last_result().map(|r| r.id).unwrap_or_default();
        device.say(&format!("steals the Director and forges its order: {what}"));
        device.relay.cut();
        site.assign(&[&device.id], GOOD, "")?;
        site.stop();
        forge_order(&site, forge)?;
        site.up()?;
        device.relay.heal();
        let result = device.result_after(&before, 40)?;
        ended(&result, "refused", "", code)?;
        last = Some(result);
    }
    let status = device.status()?;
    same("the version that runs", &status.version, FACTORY)?;
    same("the slots", &format!("{:?}", status.slots), &format!("{slots:?}"))?;
    let last = last.ok_or("no attack took place")?;
    Ok(Row { code: "platform, order_mismatch".into(), ..clock.row(&last) })
}

/// Rewrites the newest order in the database of a stopped Director.
fn forge_order(site: &Site, forge: &dyn Fn(&mut Order)) -> Result<(), String> {
    let path: PathBuf = site.state.join(vmetric::director::role::DIRECTOR.store);
    let store = Store::open(&path)?;
    let rows = store.load::<Order>(Table::Orders)?;
    let (key, mut order) = rows.into_iter().next_back().ok_or("the stolen database has no orders")?;
    forge(&mut order);
    store.queue(vec![Change { table: Table::Orders, key, value: Some(miniserde::json::to_string(&order)) }]);
    smol::block_on(store.commit())
}

/// (g) A version from before a security fix, signed by the right keys.
pub fn below_floor(cast: &Cast) -> Result<Row, String> {
    let device = cast.device("device-g")?;
    ended(&device.order(RAISED, "", 60)?, "updated", "", "confirmed")?;
    cast.confirmed(&device, RAISED)?;
    same("the security floor", &device.status()?.security_floor.to_string(), &RAISED_COUNTER.to_string())?;
    let before = Untouched::look(&device)?;
    device.say(&format!("orders {GOOD}, whose security counter is 0"));
    let clock = cast.clock();
    let result = device.order(GOOD, "", 40)?;
    let row = clock.row(&result);
    ended(&result, "refused", "", "below_floor")?;
    before.still(&device)?;
    Ok(row)
}
