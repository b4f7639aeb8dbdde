//! The feature `tracing`: what is told of, and that a subscriber may use amy itself.

use amy::{Event, Poller, Registrar, Sender};
use std::{
    fmt::{self, Write},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};
use tracing::{
    Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber,
};

/// Keeps what it is told, and calls amy for each event.
struct Witness {
    attentive: Arc<AtomicBool>,
    events: Arc<Mutex<Vec<String>>>,
    registrar: Registrar,
    echo: Sender<()>,
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != "fd" && field.name() != "id" {
            write!(self.0, "{}={value:?} ", field.name()).unwrap();
        }
    }
}

impl Subscriber for Witness {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "amy"
    }

    fn event(&self, event: &tracing::Event<'_>) {
        if !self.attentive.load(Ordering::Relaxed) {
            return;
        }
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        self.events.lock().unwrap().push(fields.0.trim_end().to_owned());
        // Each of these takes locks of amy's, none of which may be held now.
        drop(self.registrar.set_timeout(60_000).unwrap());
        self.echo.send(()).unwrap();
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// A subscriber that comes or goes changes what tracing remembers of each place that tells events.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The events of `body`.
fn witnessed(poller: &mut Poller, body: impl FnOnce(&mut Poller, &Registrar)) -> Vec<String> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let registrar = poller.get_registrar();
    // A queue of its own, so that what the subscriber does is not told to the poller under test.
    let aside = Poller::new().unwrap();
    let (echo, _received) = aside.get_registrar().channel().unwrap();
    let events = Arc::new(Mutex::new(Vec::new()));
    let attentive = Arc::new(AtomicBool::new(false));
    let witness = Witness {
        attentive: Arc::clone(&attentive),
        events: Arc::clone(&events),
        registrar: registrar.clone(),
        echo,
    };
    subscriber::with_default(witness, || {
        // A place whose first event is told inside a subscriber, or on a thread that has none, is silent
        // from then on.
        drop(registrar.set_timeout(60_000).unwrap());
        assert!(poller.wait(0).unwrap().is_empty());
        attentive.store(true, Ordering::Relaxed);
        body(poller, &registrar);
    });
    let events = events.lock().unwrap();
    events.clone()
}

#[test]
fn registrations_timers_and_waits_are_told_of() {
    let mut poller = Poller::new().unwrap();
    let events = witnessed(&mut poller, |poller, registrar| {
        let (_here, there) = UnixStream::pair().unwrap();
        let id = registrar.register(&there, Event::Write).unwrap();
        assert_eq!(poller.wait(None).unwrap()[0].id, id);
        registrar.reregister(id, &there, Event::Read).unwrap();
        registrar.deregister(&there).unwrap();
        drop(registrar.set_interval(60_000).unwrap());
        assert!(poller.wait(0).unwrap().is_empty());
    });
    let messages: Vec<_> = events.iter().map(|event| event.split(' ').next().unwrap()).collect();
    assert_eq!(events.len(), 7, "{events:?}");
    assert_eq!(messages[0], "message=registered");
    assert_eq!(events[1], "message=waited told=1");
    assert_eq!(events[2].split(" interest").next(), Some("message=registered again"));
    assert_eq!(events[3], "message=deregistered");
    assert!(events[4].starts_with("message=timer set") && events[4].contains("repeats=true"));
    assert_eq!(events[5], "message=timer cancelled");
    assert_eq!(events[6], "message=waited told=0");
}

#[test]
fn a_wake_is_told_of_on_the_thread_that_made_it() {
    let mut poller = Poller::new().unwrap();
    let notifier = poller.get_registrar().notifier().unwrap();
    let waiter = poller.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut waiter = waiter;
            // Told more than once, perhaps: what is counted is on the other side.
            assert!(!waiter.wait(None).unwrap().is_empty());
        });
        let events = witnessed(&mut poller, |poller, _| {
            while format!("{poller:?}").contains("asleep: 0") {
                thread::yield_now();
            }
            notifier.notify().unwrap();
        });
        assert_eq!(events, ["message=woke a poller"]);
    });
}
