using System.CommandLine;
using System.CommandLine.Invocation;
using System.CommandLine.Parsing;
using System.Globalization;
using System.Runtime.InteropServices;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Observation;
using Sidecar.Probes.Rehearsals;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Commands;

/// <summary>The command line: its words, and which command each leads to.</summary>
internal static class CommandTree
{
    /// <summary>Parses and runs; returns one of <see cref="ExitCodes"/>.</summary>
    public static int Invoke(IReadOnlyList<string> args, CommandEnvironment environment)
    {
        var result = Build(environment).Parse(args);
        if (result.Action is ParseErrorAction)
        {
            foreach (var error in result.Errors)
            {
                environment.Error.WriteLine(Printable.Escape(error.Message));
            }

            environment.Error.WriteLine($"Try: {PathOf(result.CommandResult)} --help");
            return ExitCodes.Usage;
        }

        return result.Invoke(new InvocationConfiguration
        {
            Output = environment.Out,
            Error = environment.Error,
            EnableDefaultExceptionHandler = false,

            // Signals are ours: the default would cut the agent off two seconds after SIGTERM.
            ProcessTerminationTimeout = null,
        });
    }

    internal static RootCommand Build(CommandEnvironment environment)
    {
        var config = new Option<string?>("--config", "-c")
        {
            Description = $"Configuration file; conf.d/*.conf beside it is read too. Default: {ConfigurationLoader.DefaultPath} where it exists, else the built-in configuration.",
            HelpName = "FILE",
        };
        var json = new Option<bool>("--json") { Description = "For programs." };

        var root = new RootCommand("""
            Keeps TCP connections between workers and back-ends from going silently dead.

            Exit codes: 0 done, 1 failed, 2 usage, 3 not permitted or the agent does not answer, 78 configuration with errors.
            """)
        {
            Run(config),
            Status(environment, config, json),
            Incidents(environment, config, json),
            ReplayCommand.Create(environment, config, json),
            Doctor(environment, config, json),
            DoctorsChild(),
            RunCheck(environment),
            CheckConfig(environment, config, json),
            MeasureCommand.Create(environment),
            AuditCommand.Create(environment, config, json),
            Version(environment),
        };
        var version = root.Options.OfType<VersionOption>().Single();
        version.Description = "Print the version.";
        version.Action = new PrintVersion(environment);
        return root;
    }

    private static Command Run(Option<string?> config)
    {
        var command = new Command("run", "Run the agent until SIGTERM or SIGINT. Without privileges it says what it cannot do and does the rest.") { config };
        command.SetAction(parsed =>
        {
            using var stop = new CancellationTokenSource();
            void OnSignal(PosixSignalContext context)
            {
                context.Cancel = true;
                stop.Cancel();
            }

            using var terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, OnSignal);
            using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, OnSignal);
            return RunCommand.Execute(parsed.GetValue(config), stop.Token);
        });
        return command;
    }

    private static Command Status(CommandEnvironment environment, Option<string?> config, Option<bool> json)
    {
        var command = new Command("status", "Show each watched connection with its owner, idle time, verdict and why. Asks the running agent; without one, looks once itself.") { json, config };
        command.SetAction(parsed => StatusCommand.Execute(environment, parsed.GetValue(config), parsed.GetValue(json)));
        return command;
    }

    private static Command Incidents(CommandEnvironment environment, Option<string?> config, Option<bool> json)
    {
        const int shown = 20;
        var last = new Option<int?>("--last", "-n")
        {
            Description = $"Only the newest N. Default: {shown} for people, all that are kept with --json.",
            HelpName = "N",
            CustomParser = result =>
            {
                if (result.Tokens.Count == 1 && int.TryParse(result.Tokens[0].Value, NumberStyles.None, CultureInfo.InvariantCulture, out var count) && count > 0)
                {
                    return count;
                }

                result.AddError("--last: expected a number of 1 or more");
                return null;
            },
        };
        var command = new Command("incidents", "Show what was done, and what was withheld and by which guardrail. Reads the state directory; needs no running agent.") { json, last, config };
        command.SetAction(parsed =>
        {
            var inJson = parsed.GetValue(json);
            return IncidentsCommand.Execute(environment, parsed.GetValue(config), inJson, parsed.GetValue(last) ?? (inJson ? null : shown));
        });
        return command;
    }

    private static Command Doctor(CommandEnvironment environment, Option<string?> config, Option<bool> json)
    {
        var command = new Command("doctor", "Show which layers work on this host and why not, each proved by doing it to a socket or process of its own. Exit code 1: a configured remedy is not possible.") { json, config };
        command.SetAction(parsed => DoctorCommand.Execute(environment, parsed.GetValue(config), parsed.GetValue(json)));
        return command;
    }

    private static Command DoctorsChild()
    {
        var command = new Command(DoctorCommand.ChildCommand) { Hidden = true };
        command.SetAction(_ => ChildRehearsal.RunChild());
        return command;
    }

    /// <summary>Behind the socket at which the agent asks for the command of a check.</summary>
    private static Command RunCheck(CommandEnvironment environment)
    {
        var command = new Command("run-check") { Hidden = true };
        command.SetAction(async (_, cancellation) =>
        {
            try
            {
                var configuration = ConfigurationLoader.Load(ConfigurationLoader.DefaultPath);
                await CheckCommand.AnswerAsync(configuration, Console.In, environment.Out, cancellation).ConfigureAwait(false);
                return ExitCodes.Ok;
            }
            catch (ConfigurationException)
            {
                await environment.Out.WriteLineAsync("! the configuration has errors: conn-sidecar check-config").ConfigureAwait(false);
                return ExitCodes.BadConfiguration;
            }
        });
        return command;
    }

    private static Command CheckConfig(CommandEnvironment environment, Option<string?> config, Option<bool> json)
    {
        var command = new Command("check-config", "Print the configuration that would be in force, defaults included, or every error in it.") { json, config };
        command.SetAction(parsed => CheckConfigCommand.Execute(environment, parsed.GetValue(config), parsed.GetValue(json)));
        return command;
    }

    private static Command Version(CommandEnvironment environment)
    {
        var command = new Command("version", "Print the version.");
        command.Action = new PrintVersion(environment);
        return command;
    }

    private static string PathOf(CommandResult command)
    {
        var words = new List<string>();
        for (SymbolResult? symbol = command; symbol is CommandResult one; symbol = symbol.Parent)
        {
            words.Insert(0, one.Command is RootCommand ? "conn-sidecar" : one.Command.Name);
        }

        return string.Join(' ', words);
    }

    /// <summary>The same for the command and for the option.</summary>
    private sealed class PrintVersion(CommandEnvironment environment) : SynchronousCommandLineAction
    {
        public override int Invoke(ParseResult parseResult)
        {
            environment.Out.WriteLine($"conn-sidecar {ProductVersion.Text}");
            return ExitCodes.Ok;
        }
    }
}
