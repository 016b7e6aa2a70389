using System.Net.Sockets;
using System.Text;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Sockets;

namespace Sidecar.Agent.Observation;

/// <summary>
/// Runs the command of one side of a [check:…] section, as another user than the agent's. As a service the agent cannot change its
/// user: it asks for the check by name at a socket of the service manager, behind which a process takes the command from the
/// configuration itself.
/// </summary>
internal static class CheckCommand
{
    /// <summary>Where the package's <c>conn-sidecar-check.socket</c> listens.</summary>
    internal const string Socket = "/run/conn-sidecar-check.sock";

    /// <summary>The package's user for commands.</summary>
    private const string OwnUser = "conn-sidecar-check";

    /// <summary>For the process behind the socket to start and to answer, beside the command's own time.</summary>
    private static readonly TimeSpan StartsWithin = TimeSpan.FromSeconds(10);

    private const int LongestAnswer = 64 * 1024;

    /// <summary>Runs it or has it run.</summary>
    /// <param name="section">Whose.</param>
    /// <param name="side"><c>expected</c> or <c>actual</c>.</param>
    /// <param name="cancellation">Ends it.</param>
    public static Task<CommandAnswer> RunAsync(CheckSection section, string side, CancellationToken cancellation) =>
        Environment.IsPrivilegedProcess || !File.Exists(Socket)
            ? RunHereAsync(section, side, cancellation)
            : AskAsync(section, side, cancellation);

    /// <summary>Answers one question, for the process behind the socket: a line <c>NAME SIDE</c> in, <c>= text</c> or <c>! problem</c> out.</summary>
    public static async Task AnswerAsync(SidecarConfiguration configuration, TextReader input, TextWriter output, CancellationToken cancellation)
    {
        var question = (await input.ReadLineAsync(cancellation).ConfigureAwait(false) ?? "").Split(' ');
        var answer = question.Length == 2 && configuration.Checks.FirstOrDefault(check => check.Name == question[0]) is { } section
            && Side(section, question[1])?.Command is not null
                ? await RunHereAsync(section, question[1], cancellation).ConfigureAwait(false)
                : new CommandAnswer(null, "the configuration has no such check; was it changed without a reload?");
        await output.WriteAsync(answer.Output is { } text ? $"= {text}\n" : $"! {answer.Problem}\n").ConfigureAwait(false);
        await output.FlushAsync(cancellation).ConfigureAwait(false);
    }

    private static Task<CommandAnswer> RunHereAsync(CheckSection section, string side, CancellationToken cancellation)
    {
        // Nothing that a file names runs as root by default.
        var user = section.User ?? (!Environment.IsPrivilegedProcess ? null : LocalUser.Find(OwnUser) is null ? "nobody" : OwnUser);
        return BoundedCommand.RunAsync(
            Side(section, side)!.Command!, user == Environment.UserName && !Environment.IsPrivilegedProcess ? null : user, section.Timeout, cancellation);
    }

    private static CheckSide? Side(CheckSection section, string side) => side switch
    {
        "expected" => section.Expected,
        "actual" => section.Actual,
        _ => null,
    };

    private static async Task<CommandAnswer> AskAsync(CheckSection section, string side, CancellationToken cancellation)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(section.Timeout + StartsWithin);
        try
        {
            using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(Socket), limit.Token).ConfigureAwait(false);
            await socket.SendAsync(Encoding.UTF8.GetBytes($"{section.Name} {side}\n"), limit.Token).ConfigureAwait(false);
            var buffer = new byte[LongestAnswer];
            var length = 0;
            for (int read; length < buffer.Length && (read = await socket.ReceiveAsync(buffer.AsMemory(length), limit.Token).ConfigureAwait(false)) > 0;)
            {
                length += read;
            }

            var answer = Encoding.UTF8.GetString(buffer, 0, length).TrimEnd('\n');
            return answer switch
            {
                ['=', ' ', ..] => new CommandAnswer(answer[2..], null),
                ['!', ' ', ..] => new CommandAnswer(null, answer[2..]),
                _ => new CommandAnswer(null, $"{Socket} gave no answer: see the journal of conn-sidecar-check@"),
            };
        }
        catch (OperationCanceledException)
        {
            return new CommandAnswer(null, cancellation.IsCancellationRequested ? "stopped" : $"{Socket} does not answer in time");
        }
        catch (SocketException e)
        {
            return new CommandAnswer(null, UnixSocketError.Describe(Socket, e));
        }
    }
}
