#![allow(missing_docs, reason = "public for the sake of the macro only; hidden from the documentation")]

use std::cell::RefCell;

use crate::bindings::exports::acequia::plugin::{state, tick, transform};
use crate::{Batch, Error, Output, Plan, Reader, Schema, State, Tick, Transform, Writer, config};

/// Makes the crate a plugin: exports a type as one of the shapes, and with it exactly the interfaces of the contract that
/// the shape needs.
///
/// - `export!(EvenFilter as Filter)`, also `Map`, `FlatMap`, `Transform`: keeps nothing between batches;
/// - `export!(WordCount as Aggregate)`, or `... as Filter + State`: keeps something;
/// - `... as Transform + Tick`, `... as Aggregate + Tick`, `... as Transform + State + Tick`: acts on time too.
///
/// One call a crate. It does something only where the target is WebAssembly.
#[macro_export]
macro_rules! export {
    ($plugin:ident as Aggregate) => { $crate::__export!($plugin, Aggregate, STATEFUL_PLUGIN, [state]); };
    ($plugin:ident as Aggregate + Tick) => {
        $crate::__export!($plugin, Aggregate, STATEFUL_TICKING_PLUGIN, [state tick]);
    };
    ($plugin:ident as $shape:ident) => { $crate::__export!($plugin, $shape, PLUGIN, []); };
    ($plugin:ident as $shape:ident + State) => { $crate::__export!($plugin, $shape, STATEFUL_PLUGIN, [state]); };
    ($plugin:ident as $shape:ident + Tick) => { $crate::__export!($plugin, $shape, TICKING_PLUGIN, [tick]); };
    ($plugin:ident as $shape:ident + State + Tick) => {
        $crate::__export!($plugin, $shape, STATEFUL_TICKING_PLUGIN, [state tick]);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($plugin:ident, $shape:ident, $world:ident, [$($more:ident)*]) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Exported;

            ::std::thread_local! {
                static INSTANCE: $crate::__private::Instance<$crate::__private::adapters::$shape<$plugin>> =
                    const { $crate::__private::Instance::new() };
            }

            impl $crate::__private::Component for Exported {
                type Plugin = $crate::__private::adapters::$shape<$plugin>;

                fn with<R>(call: impl FnOnce(&$crate::__private::Instance<Self::Plugin>) -> R) -> R {
                    INSTANCE.with(call)
                }

                fn tick_every() -> Option<u64> {
                    $crate::__tick_every!(INSTANCE, [$($more)*])
                }
            }

            $crate::__export_interface!(Exported, transform);
            $($crate::__export_interface!(Exported, $more);)*

            #[unsafe(link_section = "component-type:acequia-plugin-sdk")]
            #[used]
            pub static WORLD: [u8; $crate::__private::$world.len()] = $crate::__private::$world;
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __tick_every {
    ($instance:ident, []) => {
        None
    };
    ($instance:ident, [state]) => {
        None
    };
    ($instance:ident, [tick]) => {
        $instance.with(|instance| instance.tick_every())
    };
    ($instance:ident, [state tick]) => {
        $instance.with(|instance| instance.tick_every())
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_interface {
    ($exported:ident, transform) => {
        $crate::bindings::exports::acequia::plugin::transform::__export_acequia_plugin_transform_0_1_0_cabi!(
            $exported with_types_in $crate::bindings::exports::acequia::plugin::transform
        );
    };
    ($exported:ident, state) => {
        $crate::bindings::exports::acequia::plugin::state::__export_acequia_plugin_state_0_1_0_cabi!(
            $exported with_types_in $crate::bindings::exports::acequia::plugin::state
        );
    };
    ($exported:ident, tick) => {
        $crate::bindings::exports::acequia::plugin::tick::__export_acequia_plugin_tick_0_1_0_cabi!(
            $exported with_types_in $crate::bindings::exports::acequia::plugin::tick
        );
    };
}

/// The one plugin of a component. There is a value of it from `configure` on.
pub struct Instance<P> {
    plugin: RefCell<Option<P>>,
}

/// What `export!` implements. The interfaces of the contract follow from it.
pub trait Component {
    type Plugin: Transform + 'static;

    fn with<R>(call: impl FnOnce(&Instance<Self::Plugin>) -> R) -> R;

    fn tick_every() -> Option<u64>;
}

impl<P: Transform> Instance<P> {
    #[expect(clippy::new_without_default, reason = "must be const")]
    pub const fn new() -> Self {
        Instance { plugin: RefCell::new(None) }
    }

    pub fn configure(&self, config: &str, schema: &Schema) -> Result<Plan, Error> {
        let (plugin, plan) = P::configure(config::parse(config)?, schema)?;
        self.plugin.replace(Some(plugin));
        Ok(plan)
    }

    pub fn apply(&self, batch: Batch) -> Result<Output, Error> {
        self.call(|plugin| plugin.apply(batch))
    }

    pub fn snapshot(&self) -> Result<Vec<u8>, Error>
    where
        P: State,
    {
        self.call(|plugin| {
            let mut out = Writer::new();
            plugin.snapshot(&mut out);
            Ok(out.finish())
        })
    }

    pub fn restore(&self, snapshot: &[u8]) -> Result<(), Error>
    where
        P: State,
    {
        self.call(|plugin| {
            let mut from = Reader::new(snapshot);
            plugin.restore(&mut from)?;
            match from.left() {
                0 => Ok(()),
                left => Err(Error::new(format!("the snapshot has {left} bytes more than were expected"))),
            }
        })
    }

    pub fn tick_every(&self) -> Option<u64>
    where
        P: Tick,
    {
        self.call(|plugin| Ok(plugin.every())).ok()
    }

    pub fn tick(&self, now: i64) -> Result<Output, Error>
    where
        P: Tick,
    {
        self.call(|plugin| plugin.tick(now))
    }

    fn call<R>(&self, call: impl FnOnce(&mut P) -> Result<R, Error>) -> Result<R, Error> {
        match self.plugin.borrow_mut().as_mut() {
            Some(plugin) => call(plugin),
            None => Err("called before `configure`".into()),
        }
    }
}

impl<C: Component> transform::Guest for C {
    fn configure(config: String, schema: Schema) -> Result<Plan, String> {
        panics_reach_the_host();
        let mut plan = C::with(|instance| instance.configure(&config, &schema)).map_err(|error| error.to_string())?;
        plan.tick_every = C::tick_every().or(plan.tick_every);
        Ok(plan)
    }

    fn apply(batch: Batch) -> Result<Output, String> {
        C::with(|instance| instance.apply(batch)).map_err(|error| error.to_string())
    }
}

impl<C: Component<Plugin: State>> state::Guest for C {
    fn snapshot() -> Vec<u8> {
        // Before `configure` there is nothing to go on from.
        C::with(Instance::snapshot).unwrap_or_default()
    }

    fn restore(snapshot: Vec<u8>) -> Result<(), String> {
        C::with(|instance| instance.restore(&snapshot)).map_err(|error| error.to_string())
    }
}

impl<C: Component<Plugin: Tick>> tick::Guest for C {
    fn tick(now: i64) -> Result<Output, String> {
        C::with(|instance| instance.tick(now)).map_err(|error| error.to_string())
    }
}

/// A panic becomes a trap that says nothing: WebAssembly without WASI has no stderr. So the message goes to the host's log
/// first.
fn panics_reach_the_host() {
    #[cfg(target_arch = "wasm32")]
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("a value that is not text");
        match panic.location() {
            Some(place) => crate::log::error(format_args!("panic at {place}: {message}")),
            None => crate::log::error(format_args!("panic: {message}")),
        }
    }));
}
