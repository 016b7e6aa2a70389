using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Snapshots;
using Spectre.Console;

namespace Sidecar.Agent.Commands;

/// <summary>What the commands have around them; the tests give them another.</summary>
internal sealed record CommandEnvironment
{
    public required TextWriter Out { get; init; }
    public required TextWriter Error { get; init; }

    /// <summary>Whether <see cref="Out"/> is shown on a terminal that takes colours, and nobody set NO_COLOR.</summary>
    public required bool Colors { get; init; }

    /// <summary>Columns to fit into.</summary>
    public required int Width { get; init; }

    /// <summary>The configuration without <c>--config</c>.</summary>
    public string DefaultConfiguration { get; init; } = ConfigurationLoader.DefaultPath;

    /// <summary>Where a running agent is looked for when the default configuration has errors.</summary>
    public string DefaultRuntimeDirectory { get; init; } = new AgentSection().RuntimeDirectory;

    /// <summary>One scan without a running agent.</summary>
    public Func<SidecarConfiguration, AgentSnapshot> Scan { get; init; } = OneScan.Take;

    public static CommandEnvironment OfProcess() => new()
    {
        Out = Console.Out,
        Error = Console.Error,
        Colors = !Console.IsOutputRedirected
            && string.IsNullOrEmpty(Environment.GetEnvironmentVariable("NO_COLOR"))
            && Environment.GetEnvironmentVariable("TERM") is { Length: > 0 } and not "dumb",
        Width = WidthOfTerminal(),
    };

    /// <summary>A console on <see cref="Out"/> that decides nothing by itself: no detection, no questions.</summary>
    public IAnsiConsole CreateConsole()
    {
        var console = AnsiConsole.Create(new AnsiConsoleSettings
        {
            Out = new AnsiConsoleOutput(Out),
            Ansi = Colors ? AnsiSupport.Yes : AnsiSupport.No,
            ColorSystem = Colors ? ColorSystemSupport.Standard : ColorSystemSupport.NoColors,
            Interactive = InteractionSupport.No,
        });
        console.Profile.Width = Width;
        console.Profile.Capabilities.Unicode = true;
        return console;
    }

    private static int WidthOfTerminal()
    {
        if (Console.IsOutputRedirected)
        {
            return 80;
        }

        // 0 on terminals that do not know their size, such as a serial console.
        var width = Console.WindowWidth;
        return width < 40 ? 80 : Math.Min(width, 200);
    }
}
