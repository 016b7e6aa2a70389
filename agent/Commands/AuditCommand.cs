using System.CommandLine;
using System.Runtime.InteropServices;
using System.Text.Json;
using Sidecar.Agent.Audit;
using Sidecar.Agent.Audit.Host;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Agent.Observation;
using Sidecar.Probes;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Commands;

/// <summary><c>audit</c>: reads the configuration of the stack around the workers and says what will break.</summary>
internal static class AuditCommand
{
    public static Command Create(CommandEnvironment environment, Option<string?> config, Option<bool> json)
    {
        var file = new Option<string[]>("--file")
        {
            Description = $"Read this configuration alone, and ask neither processes nor kernel; may be repeated. PROGRAM is one of {string.Join(", ", RunningProgram.Known.Select(known => known.Program))}.",
            HelpName = "PROGRAM=PATH",
        };
        var root = new Option<string?>("--root")
        {
            Description = "Read the default configurations below this directory alone, such as a mounted image, and ask neither processes nor kernel.",
            HelpName = "DIR",
        };
        var balancer = new Option<string[]>("--balancer")
        {
            Description = "A name in front of this host: each of its addresses is connected to, gently. May be repeated.",
            HelpName = "HOST:PORT",
        };
        var balancerTimeout = DurationOption("--balancer-timeout", "After how long without a byte the balancer in front closes a connection; measure --http finds it.");
        var request = DurationOption("--request", "How long a request may stay silent that is to be answered: every shorter limit is a finding.");
        var command = new Command("audit", "Read the configuration of nginx, uWSGI, HAProxy, Apache, Squid, gunicorn, PostgreSQL and the kernel, show the way of a request with its timeouts, and say what will break and which line to change. Exit code 1: there are findings. Nothing is ever written.")
        {
            json, config, file, root, balancer, balancerTimeout, request,
        };
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
            if (!TryFiles(parsed.GetValue(file) ?? [], environment, out var files) || !TryBalancers(parsed.GetValue(balancer) ?? [], environment, out var balancers))
            {
                return ExitCodes.Usage;
            }

            var options = new AuditOptions
            {
                Files = files,
                Root = parsed.GetValue(root),
                Balancers = [.. balancers.Select(balancer => new NameToCheck(balancer.Host ?? balancer.Network!.Value.BaseAddress.ToString(), balancer.Port, "--balancer"))],
                BalancerName = balancers.Count > 0 ? balancers[0].Text : "",
                BalancerTimeout = parsed.GetValue(balancerTimeout),
                LongestRequest = parsed.GetValue(request),
            };
            return Execute(environment, parsed.GetValue(config), options, parsed.GetValue(json), stop.Token);
        });
        return command;
    }

    internal static int Execute(CommandEnvironment environment, string? configurationPath, AuditOptions options, bool json, CancellationToken cancellation)
    {
        if (!ConfigurationSource.TryLoad(environment, configurationPath, out var configuration))
        {
            return ExitCodes.BadConfiguration;
        }

        if (options.Root is { } root && !Directory.Exists(root))
        {
            environment.Error.WriteLine($"--root: {Printable.Quote(root)} is no directory");
            return ExitCodes.Usage;
        }

        var progress = Progress(environment, json);
        AuditReport report;
        try
        {
            report = AuditReport.Of(new StackScan(With(options, configuration)).Take(progress, cancellation));
            progress?.Invoke("");
        }
        catch (KernelException e)
        {
            environment.Error.WriteLine(e.Message);
            return e.IsNotPermitted ? ExitCodes.Unreachable : ExitCodes.Failure;
        }

        if (report.Stack.Unread is { Count: > 0 } unread)
        {
            foreach (var note in unread)
            {
                environment.Error.WriteLine($"{(options.Files.Count > 0 ? "--file" : "--root")}: {Printable.Escape(note.ToString())}");
            }

            return ExitCodes.Usage;
        }

        if (json)
        {
            environment.Out.WriteLine(JsonSerializer.Serialize(AuditDocument.From(report), AuditJson.Default.AuditDocument));
        }
        else
        {
            AuditText.Write(environment.CreateConsole(), report);
        }

        return report.Findings.Count == 0 ? ExitCodes.Ok : ExitCodes.Failure;
    }

    /// <summary>Hands in what the agent's configuration says.</summary>
    private static AuditOptions With(AuditOptions options, SidecarConfiguration configuration)
    {
        var workers = new WorkerMatcher(configuration.Workers);
        return options with
        {
            AllNetworkNamespaces = configuration.Agent.AllNetworkNamespaces,
            IsWorker = (reader, process) => configuration.Workers.Count > 0 && workers.Find(
                new OwnerInfo(process.Identity, process.Comm, reader.ReadExecutable(process.Identity.Pid), reader.ReadUnit(process.Identity.Pid), reader.ReadUid(process.Identity.Pid), false, null)) is not null,
            Names =
            [
                .. configuration.Upstreams.Where(section => section.Direction == UpstreamDirection.Outbound)
                    .SelectMany(section => section.Endpoints.Where(endpoint => endpoint.Host is not null)
                        .Select(endpoint => new NameToCheck(endpoint.Host!, endpoint.Port, $"upstream {section.Name}"))),
            ],
            ReadUpstreams = () => new AuditedUpstreams(configuration).Read(),
        };
    }

    /// <summary>On a terminal one line that is written anew; elsewhere nothing.</summary>
    private static Action<string>? Progress(CommandEnvironment environment, bool json)
    {
        if (json || Console.IsErrorRedirected)
        {
            return null;
        }

        return doing => environment.Error.Write($"\r{doing}\u001b[K\r");
    }

    private static Option<TimeSpan?> DurationOption(string name, string description) => new(name)
    {
        Description = description,
        HelpName = "DURATION",
        CustomParser = result =>
        {
            if (result.Tokens.Count == 1 && Duration.TryParse(result.Tokens[0].Value, out var value) && value > TimeSpan.Zero)
            {
                return value;
            }

            result.AddError($"{name}: expected a duration, such as 60s or 5m");
            return null;
        },
    };

    private static bool TryFiles(string[] texts, CommandEnvironment environment, out List<(string Program, string Path)> files)
    {
        files = [];
        foreach (var text in texts)
        {
            var equals = text.IndexOf('=', StringComparison.Ordinal);
            var program = equals < 0 ? "" : text[..equals];
            if (!RunningProgram.Known.Any(known => known.Program == program) || equals == text.Length - 1)
            {
                environment.Error.WriteLine($"--file: expected PROGRAM=PATH with one of {string.Join(", ", RunningProgram.Known.Select(known => known.Program))}");
                return false;
            }

            files.Add((program, text[(equals + 1)..]));
        }

        return true;
    }

    private static bool TryBalancers(string[] texts, CommandEnvironment environment, out List<EndpointPattern> balancers)
    {
        balancers = [];
        foreach (var text in texts)
        {
            if (!EndpointSyntax.TryParse(text, out var pattern, out _) || (pattern!.Network is { } network && network.PrefixLength is not (32 or 128)))
            {
                environment.Error.WriteLine("--balancer: expected HOST:PORT, such as www.example.org:443");
                return false;
            }

            balancers.Add(pattern);
        }

        return true;
    }
}
