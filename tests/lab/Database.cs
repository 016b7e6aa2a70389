using System.Net;
using Npgsql;

namespace Sidecar.Lab;

/// <summary>PostgreSQL 15 of Debian's packages in a fresh data directory, run by an unprivileged user.</summary>
public sealed class Database
{
    public const int Port = 5432;
    private const string Programs = "/usr/lib/postgresql/15/bin";
    private const string User = "postgres";

    private readonly Func<Task<ChildProcess>> _start;
    private readonly string _dataDirectory;

    private Database(Func<Task<ChildProcess>> start, ChildProcess server, string data, IPAddress address, string socketDirectory)
    {
        _start = start;
        _dataDirectory = data;
        Server = server;
        Address = address;
        SocketDirectory = socketDirectory;
    }

    /// <summary>The postmaster.</summary>
    public ChildProcess Server { get; private set; }

    /// <summary>The address the application uses.</summary>
    public IPAddress Address { get; }

    public IPEndPoint EndPoint => new(Address, Port);

    /// <summary>Where its Unix socket is, by which tests reach it around the network.</summary>
    public string SocketDirectory { get; }

    internal static async Task<Database> StartAsync(LabNetwork network, LabOptions options, string directory, IList<ChildProcess> children)
    {
        var data = Path.Combine(directory, "postgresql");
        var template = await Template.PathAsync();
        await Command.RunAsync("cp", ["-a", "--reflink=auto", template, data]);
        await File.AppendAllTextAsync(Path.Combine(data, "pg_hba.conf"), $"host all all {network.Network4} trust\nhost all all {network.Network6} trust\n");
        var sockets = Path.Combine(directory, "postgresql-run");
        Directory.CreateDirectory(sockets);
        await Command.RunAsync("chown", [$"{User}:", sockets]);
        async Task<ChildProcess> StartServerAsync()
        {
            var server = ChildProcess.Start(new ChildOptions
            {
                Name = "postgresql",
                CommandLine =
                [
                    $"{Programs}/postgres", "-D", data, "-k", sockets, "-h", "*", "-p", $"{Port}", "-F",
                    "-c", "shared_buffers=16MB", "-c", "dynamic_shared_memory_type=mmap", "-c", "log_timezone=UTC", "-c", "log_connections=on", "-c", "log_disconnections=on", "-c", "log_line_prefix=%m [%p] ",
                ],
                Namespace = network.Database.Name,
                User = User,
                PrivateIpc = true,
                Directory = directory,
            });
            children.Add(server);
            await server.WaitForLineAsync(l => l.Contains("database system is ready", StringComparison.Ordinal), TimeSpan.FromSeconds(30));
            return server;
        }

        return new Database(StartServerAsync, await StartServerAsync(), data, options.IPv6 ? network.DatabaseAddress6 : network.DatabaseAddress4, sockets);
    }

    /// <summary>Stops the server and starts it again as a standby, which is in recovery and answers queries that only read.</summary>
    public async Task RestartAsStandbyAsync()
    {
        Server.Send(Signal.Interrupt); // PostgreSQL's fast shutdown
        await Server.WaitForExitAsync(TimeSpan.FromSeconds(30));
        await File.WriteAllTextAsync(Path.Combine(_dataDirectory, "standby.signal"), "");
        Server = await _start();
    }

    /// <summary>Stops the server and starts it again; connections of before are unknown to it.</summary>
    public async Task RestartAsync()
    {
        Server.Send(Signal.Interrupt);
        await Server.WaitForExitAsync(TimeSpan.FromSeconds(30));
        Server = await _start();
    }

    /// <summary>libpq's connection string to it through the network.</summary>
    /// <param name="role"><c>postgres</c>; <c>web</c>, an ordinary role; <c>sidecar</c>, which has what the agent needs and no more.</param>
    public string Dsn(string role) => $"host={Address} port={Port} user={role} dbname=postgres sslmode=disable";

    /// <summary>A connection through the server's Unix socket, around the router.</summary>
    public async Task<NpgsqlConnection> ConnectLocallyAsync()
    {
        var connection = new NpgsqlConnection($"Host={SocketDirectory};Port={Port};Username={User};Database=postgres;Pooling=false");
        await connection.OpenAsync();
        return connection;
    }

    /// <summary>
    /// A data directory as initdb makes it: that takes seconds, a copy of it a tenth of one. It stands while the
    /// process has labs.
    /// </summary>
    internal static class Template
    {
        private static readonly Lock Gate = new();
        private static int _users;
        private static LabSlot? _slot;
        private static Task<string>? _data;

        /// <summary>Counts a lab in, before it begins.</summary>
        public static void Acquire()
        {
            lock (Gate)
            {
                _users++;
            }
        }

        /// <summary>The directory; made for the first lab that asks.</summary>
        public static Task<string> PathAsync()
        {
            lock (Gate)
            {
                return _data ??= Task.Run(MakeAsync);
            }
        }

        /// <summary>Counts a lab out; the last one removes the directory.</summary>
        public static void Release()
        {
            lock (Gate)
            {
                if (--_users == 0)
                {
                    if (_slot is { } last)
                    {
                        LabCleanup.Remove(last);
                    }

                    (_slot, _data) = (null, null);
                }
            }
        }

        private static async Task<string> MakeAsync()
        {
            _slot = LabCleanup.Keep(LabSlot.TakeNamed("template"));
            var directory = Path.Combine(_slot.Directory, "data");
            Directory.CreateDirectory(directory);
            await Command.RunAsync("chown", [$"{User}:", directory]);
            await Command.RunAsync("setpriv",
                ["--reuid", User, "--regid", User, "--init-groups", "--", $"{Programs}/initdb", "-D", directory, "-U", User, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]);
            const string roles = "CREATE ROLE web LOGIN;\nCREATE ROLE sidecar LOGIN;\nGRANT pg_monitor TO sidecar;\nGRANT pg_signal_backend TO sidecar;\n";
            await Command.RunAsync("setpriv",
                ["--reuid", User, "--regid", User, "--init-groups", "--", $"{Programs}/postgres", "--single", "-D", directory, "-c", "fsync=off", "postgres"], roles);
            return directory;
        }
    }
}
